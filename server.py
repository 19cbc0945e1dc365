"""The chat server and web page. `python server.py`

Options: --host, --port, --model, --home, --config. Ctrl-C or SIGTERM stops it; replies under way
get a few seconds to finish.
"""

from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from autodidact import checkpoints, hub, settings
from autodidact.entry import entry_point
from autodidact.errors import SettingError
from autodidact.progress import set_up_logging
from autodidact.web.app import build_app

log = logging.getLogger("server")
GRACE_S = 5


def main(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: auto, a name, a folder.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder shared with the learner.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Chat in the browser and over HTTP."""
    set_up_logging("server", plain=True)
    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    tree = settings.load(config, model=model, home=home, server=given or None)
    section = tree.server
    checkpoints.prepare_home(tree.home)
    with checkpoints.lock(tree.home, "server"):
        listener = _listen(section.host, section.port)
        from autodidact.generators.local import LocalGenerator

        generator = LocalGenerator(
            tree.home,
            section,
            lambda: hub.resolve(tree.model, tree.revision, tree.home, log.info),
        )
        generator.start()
        app = build_app(section, tree.home, generator, tree.retrieval)
        bound = listener.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(section.host, section.host)  # noqa: S104
        log.info("open http://%s:%d in a browser", shown, bound)
        config_ = uvicorn.Config(
            app,
            log_level="warning",
            http="h11",
            timeout_graceful_shutdown=GRACE_S,
            limit_concurrency=256,
            h11_max_incomplete_event_size=64 * 1024,
            server_header=False,
            proxy_headers=False,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal again once it has shut down; by then there is nothing to do.
            signal.signal(number, lambda *_: None)
        try:
            uvicorn.Server(config_).run(sockets=[listener])
        finally:
            generator.close()
        log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise SettingError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port "
            "or AUTODIDACT_SERVER__PORT"
        ) from None
    return listener


if __name__ == "__main__":
    entry_point(main)
