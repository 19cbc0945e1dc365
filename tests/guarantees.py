"""How far the tests of the guarantees go: `GUARANTEES=full` runs their long forms."""

from __future__ import annotations

import os


def full() -> bool:
    """Whether the long forms are asked for, by the environment variable `GUARANTEES`."""
    return os.environ.get("GUARANTEES", "") == "full"
