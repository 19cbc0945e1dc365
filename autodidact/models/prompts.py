"""Dialogues as token ids, through the base's own chat template.

What people type and pages say is data: control tokens that are spelt out in it lose their meaning
(`neutral`) before the template is filled in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from jinja2.exceptions import TemplateError

from autodidact.errors import DialogueRefused
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import Message

MOST_WORDS_OF_A_TEMPLATE = 200
"""Characters of what a template says that are passed on."""


def prompt_ids(base: LoadedBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a dialogue with the mark that the assistant speaks next."""
    return _render(base, messages, generation=True)


def dialogue_ids(base: LoadedBase, messages: Sequence[Message]) -> tuple[list[int], int]:
    """Token ids of a dialogue that ends with the assistant's turn, and where its answer begins.

    The answer includes the token that ends the turn, so that the model learns to stop; what a
    template adds after that token is cut off.
    """
    start = prompt_ids(base, messages[:-1])
    whole = _render(base, messages, generation=False)
    if whole[: len(start)] != start:
        answer = base.tokenizer(
            " " + messages[-1].content.strip(), add_special_tokens=False
        ).input_ids
        whole = [*start, *answer]
    for i in range(len(start), len(whole)):
        if whole[i] in base.stop_ids:
            return whole[: i + 1], len(start)
    return [*whole, _turn_end(base)], len(start)


def opening_ids(base: LoadedBase) -> list[int]:
    """The tokens that every chat begins with, before what the user says: the template's opening,
    with the system turn that some templates put there."""
    first, second = (prompt_ids(base, [Message("user", text)]) for text in ("A", "Why?"))
    same = (a == b for a, b in zip(first, second, strict=False))
    return list(itertools.compress(first, itertools.takewhile(bool, same)))


def neutral(base: LoadedBase, text: str) -> str:
    """Text in which no control token can be read: what people type and pages say is data.

    A space after its first character takes the meaning from a control token that is spelt out.
    """
    for token in base.control_tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _render(base: LoadedBase, messages: Sequence[Message], *, generation: bool) -> list[int]:
    turns = [
        {"role": message.role, "content": neutral(base, message.content)} for message in messages
    ]
    try:
        text = base.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=generation
        )
    except TemplateError as error:
        said = " ".join(str(error).split())[:MOST_WORDS_OF_A_TEMPLATE]
        raise DialogueRefused(f"the model's chat template refuses this dialogue: {said}") from None
    return list(base.tokenizer(text, add_special_tokens=False).input_ids)


def _turn_end(base: LoadedBase) -> int:
    eos = base.tokenizer.eos_token_id
    return int(eos) if eos is not None else min(base.stop_ids)
