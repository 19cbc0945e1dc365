"""Where an answer stands in a sentence, and the words that ask for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """`start` and `end` enclose what the question replaces, which may be more than the answer (an
    article, an "about"). `wh` asks in place, `some` stands for it in a statement, `noun` is what
    it is called. `fronted` is the wh-phrase with its preposition, to begin a question with, and
    `front` is where the replaced phrase begins then; "" if that would not be English. `short` asks
    in front of the telling words, where `wh` would not say of what.
    """

    start: int
    end: int
    answer: str
    kind: str
    wh: str
    some: str
    noun: str
    fronted: str = ""
    front: int = -1
    short: str = ""
