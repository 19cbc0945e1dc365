"""The versions on disk, told and chosen: `versions`, `pin`, `unpin` and `rollback`.

`listing` says what there is, for the command line and for the server's operator alike; the commands
below act on `PIN` and `CURRENT` through `checkpoints`. A running server follows within two seconds.

    pin       N answers whatever is published; the learner goes on from the newest
    rollback  N answers whatever is published, and the learner goes on from N

What is listed is what the files say. Only the server knows what it has in memory; it may pass that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from autodidact import checkpoints, inbox, settings
from autodidact.checkpoints.listing import call, listing, table

Home = Annotated[Path | None, typer.Option(help="Folder shared by learner and server.")]
Config = Annotated[Path | None, typer.Option(help="Settings file.")]


# What people read ---------------------------------------------------------------------------------


# Commands -----------------------------------------------------------------------------------------


def versions(
    home: Home = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The versions on disk: when, made from what, what was learned, which one serves."""
    root = settings.load(config, home=home).home
    rows = listing(root)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(table(rows))
    held = checkpoints.pinned(root)
    if held is not None and held not in [row["version"] for row in rows]:
        print(f"pinned to {held}, which is not there; choose again: pin, unpin or rollback --to")


def pin(
    version: Annotated[int, typer.Argument(help="Version to serve; 0 is the base.")],
    home: Home = None,
    config: Config = None,
) -> None:
    """Serve this version whatever is published, until `unpin`. Learning goes on from the newest."""
    root = settings.load(config, home=home).home
    checkpoints.pin(root, version)
    print(f"pinned: {call(version)} answers in two seconds, whatever is published, until `unpin`")


def unpin(home: Home = None, config: Config = None) -> None:
    """Serve the newest version again, and each new one as it is published."""
    root = settings.load(config, home=home).home
    checkpoints.unpin(root)
    print(f"not pinned: {call(checkpoints.current(root))}, the newest, answers in two seconds")


def rollback(
    to: Annotated[int | None, typer.Option(help="Version to serve; 0 is the base.")] = None,
    home: Home = None,
    config: Config = None,
) -> None:
    """Serve an older version again (default: the parent of the one that serves), until `unpin`.

    What was taught since goes back into the queue; the next cycle builds on that version.
    """
    root = settings.load(config, home=home).home
    old, new = checkpoints.roll_back(root, to)
    inbox.leave(root, inbox.Rollback(new))
    print(
        f"rolled back from {old} to {new}: a running server answers from {call(new)} in two "
        "seconds; newer ones do not go live until `unpin`"
    )
