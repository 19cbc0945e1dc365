"""Does the model still chat? Share of well-formed replies to prompts that the base once wrote.

No judge reads the replies: a small model that learned facts at the cost of its chat shows it in the
form, in replies that are empty, do not end, leak control tokens or loop. A well-formed reply

- is not empty,
- ended by itself before the limit (an end mark was sampled),
- holds no control token (`<|im_end|>`, `</s>`, `[INST]` and their kin), no control character
  except line breaks and tabs, and no U+FFFD (bytes that are no UTF-8),
- does not repeat itself: no sequence of four words occurs three times or more (overlaps counted),
  and no word stands six times or more in a row, compared without case and punctuation at the
  edges. Two occurrences are allowed, because an answer may well take up the question and a list
  its heading; four words are the shortest sequence that small talk rarely repeats three times.

Whether a reply is true or helpful is not measured here. What decides is the comparison with the
untouched base and the parent on the same prompts (`gate`), so a habit of the base costs nothing.
Words are split at white space, so looping is judged leniently in scripts without it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

MAX_REPLY_TOKENS = 64
SEQUENCE_WORDS = 4
SEQUENCE_TIMES = 3
WORD_TIMES = 6

CONTROL_TOKEN = re.compile(
    r"<\|[^<>|\s]{1,40}\|>"  # <|im_end|>, <|endoftext|>, <|eot_id|>
    r"|</?(?:s|unk|pad|bos|eos|mask)>"
    r"|<(?:start|end)_of_(?:turn|text)>"
    r"|\[/?INST\]|<<?/?SYS>>?"
)


class Talker(Protocol):
    """One version of the model, as this measure needs it. Order of inputs is kept."""

    def replies(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[str, bool]]:
        """Greedy replies to prompts of token ids (generation mark included): the text without the
        end mark but with any other control token, and whether it ended by itself."""
        ...


@dataclass(frozen=True)
class ChatResult:
    reply: str
    ended: bool
    well_formed: bool


def measure(
    subject: Talker, prompts: Sequence[Sequence[int]], max_new_tokens: int = MAX_REPLY_TOKENS
) -> list[ChatResult]:
    """One result a prompt, in their order."""
    replies = subject.replies(prompts, max_new_tokens)
    assert len(replies) == len(prompts)
    return [ChatResult(text, ended, ended and well_formed(text)) for text, ended in replies]


def well_formed(reply: str) -> bool:
    """Whether the text of a reply, taken as ended, has the form of one."""
    return not (
        not reply.strip()
        or "\ufffd" in reply
        or any(unicodedata.category(c) == "Cc" and c not in "\n\r\t" for c in reply)
        or CONTROL_TOKEN.search(reply)
        or repeats(reply)
    )


def repeats(reply: str) -> bool:
    """Whether a reply loops: some four words three times, or one word six times in a row."""
    words = [word.strip(_PUNCTUATION) or word for word in reply.casefold().split()]
    if any(sum(1 for _ in run) >= WORD_TIMES for _, run in groupby(words)):
        return True
    starts = range(len(words) - SEQUENCE_WORDS + 1)
    seen = Counter(tuple(words[i : i + SEQUENCE_WORDS]) for i in starts)
    return any(times >= SEQUENCE_TIMES for times in seen.values())


_PUNCTUATION = ".,;:!?…\"'“”‘’()[]{}*_-–—"
