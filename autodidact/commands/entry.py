"""How a program of ours starts and ends: one line for an error that a user can cause."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import typer

from autodidact.errors import AutodidactError


def entry_point(main: Callable[..., None] | typer.Typer) -> None:
    """Run a command line. An AutodidactError becomes one line on standard error and its exit code;
    any other exception is a bug of ours and keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal shows what it can, and "?" for more
            stream.reconfigure(errors="replace")
    app = main
    if not isinstance(main, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(main)
    try:
        app()
    except AutodidactError as error:
        print(f"autodidact: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
