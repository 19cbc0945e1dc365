"""The reply settings that a reader may turn: one definition for `/chat` and for the page.

`low` and `high` are what the page offers; `/chat` takes a little more where its model says so
(any top-p above 0, any length from 1 that fits).
"""

from __future__ import annotations

from dataclasses import dataclass

from autodidact.chat.reply import DEFAULT_LENGTH


@dataclass(frozen=True)
class Knob:
    """One setting. `high` None means the room that is left in the context, in tokens, and `default`
    then is the most that is taken of it unasked."""

    name: str
    label: str
    low: float
    high: float | None
    step: float
    default: float
    help: str

    @property
    def digits(self) -> int:
        """Decimals to show."""
        return 2 if self.step < 1 else 0


TEMPERATURE = Knob(
    "temperature",
    "Temperature",
    0,
    2,
    0.05,
    0.7,
    "How freely the next word is chosen. 0 always takes the likeliest word; above 1 a small model "
    "soon rambles.",
)
TOP_P = Knob(
    "top_p",
    "Top-p",
    0.05,
    1,
    0.01,
    0.9,
    "Chooses only among the likeliest words that together make up this share. 1 allows all.",
)
TOP_K = Knob(
    "top_k",
    "Top-k",
    0,
    200,
    1,
    50,
    "Chooses only among this many likeliest words. 0 sets no limit.",
)
MAX_LENGTH = Knob(
    "max_length",
    "Longest reply",
    16,
    None,
    1,
    DEFAULT_LENGTH,
    "In tokens, about ¾ of a word each. {room} is what still fits into this conversation.",
)


@dataclass(frozen=True)
class Switch:
    """A setting that is on or off. Its default is the server's."""

    name: str
    label: str
    help: str


RETRIEVAL = Switch(
    "retrieval", "Look up passages", "Off: memory alone, which shows best what it learned."
)
KNOBS = (TEMPERATURE, TOP_P, TOP_K, MAX_LENGTH)

PRESETS: dict[str, dict[str, float]] = {
    "Exact": {"temperature": 0, "top_p": 0.9, "top_k": 50},
    "Balanced": {"temperature": 0.7, "top_p": 0.9, "top_k": 50},
    "Free": {"temperature": 1, "top_p": 0.95, "top_k": 100},
}
