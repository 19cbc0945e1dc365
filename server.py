"""The chat server and web page. `python server.py`

Options: --host, --port, --model, --home, --config. Ctrl-C or SIGTERM stops it; replies under way
get a few seconds to finish, and no new ones are taken on.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from autodidact import generators, settings
from autodidact.commands.entry import entry_point
from autodidact.errors import SettingError
from autodidact.generators import ServingContext
from autodidact.home import lock, prepare_home
from autodidact.learning.progress import set_up_logging
from autodidact.types.protocols import Runs
from autodidact.web.app import build_app
from autodidact.web.limits import KEEP_ALIVE_S, connections

log = logging.getLogger("server")
GRACE_S = 5
BACKLOG = 2048
"""Connections that the system holds until they are accepted; uvicorn's own default."""
SPARE_FILES = 128
"""Open files besides connections: databases, checkpoints, logs, the model's."""


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
    prepare_home(tree.home)
    with lock(tree.home, "server"):
        listener = _listen(section.host, section.port)
        context = ServingContext(tree.home, section, tree.model, tree.revision, tree.rounding)
        generator = generators.build(tree.generators, context)
        if isinstance(generator, Runs):
            generator.start()
        app = build_app(section, tree.home, generator, tree.retrieval)
        bound = listener.getsockname()[1]
        plain = section.host.strip("[]")
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plain, plain)  # noqa: S104
        shown = f"[{shown}]" if ":" in shown else shown
        log.info("open http://%s:%d in a browser", shown, bound)
        config_ = uvicorn.Config(
            app,
            log_level="warning",
            http="h11",
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            limit_concurrency=_allowed(connections(section.max_concurrent + section.max_queue)),
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
            if isinstance(generator, Runs):
                generator.close()
        log.info("stopped")


def _allowed(wanted: int) -> int:
    """How many connections to accept: `wanted`, or what the system's limit of open files leaves.

    The soft limit, often 1,024, is raised as far as it may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # a system with a lower limit than it tells
        most = soft
    return max(1, min(wanted, most - SPARE_FILES))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        # From here on a connection waits for its answer: whoever reads the address that is about
        # to be printed may use it at once.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port "
            "or AUTODIDACT_SERVER__PORT"
        ) from None
    return listener


if __name__ == "__main__":
    entry_point(main)
