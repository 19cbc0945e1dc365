"""Dialogues through templates that take not all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodidact.errors import DialogueRefused
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import prompt_ids
from autodidact.types.chat import Message
from tests.versions import one_line

pytest_plugins = ["tests.core_fixtures"]

NO_SYSTEM = (
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)
IN_TURNS = (
    "{% if not loop.first and m.role == loop.previtem.role %}"
    "{{ raise_exception('Roles must alternate\nuser/assistant') }}{% endif %}"
)
SAID = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
DIALOGUES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=8)),
    min_size=1,
    max_size=4,
)


def speaking(base: LoadedBase, *rules: str) -> LoadedBase:
    """The base with a template of these rules."""
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = f"{{% for m in messages %}}{''.join(rules)}{SAID}{{% endfor %}}"
    return replace(base, tokenizer=tokenizer)


@pytest.fixture
def base(tiny_base: Callable[[str], LoadedBase]) -> LoadedBase:
    return tiny_base("smollm2")


def test_what_a_template_refuses_is_told_in_its_own_words(base: LoadedBase) -> None:
    strict = speaking(base, NO_SYSTEM, IN_TURNS)
    system, user = Message("system", "Be brief."), Message("user", "Who?")
    with pytest.raises(DialogueRefused) as refused:
        prompt_ids(strict, [system, user])
    assert refused.value.status == 400
    assert one_line(refused.value).endswith("refuses this dialogue: System role not supported")
    with pytest.raises(DialogueRefused) as refused:
        prompt_ids(strict, [user, user])
    assert one_line(refused.value).endswith("Roles must alternate user/assistant")
    assert prompt_ids(strict, [user])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    dialogue=DIALOGUES,
    rules=st.lists(st.sampled_from([NO_SYSTEM, IN_TURNS, "{{ nothing.at.all }}"]), unique=True),
)
def test_a_dialogue_has_tokens_or_is_refused(
    base: LoadedBase, dialogue: list[Message], rules: list[str]
) -> None:
    roles = [message.role for message in dialogue]
    refuses = (
        any("nothing" in rule for rule in rules)
        or (NO_SYSTEM in rules and "system" in roles)
        or (IN_TURNS in rules and any(a == b for a, b in pairwise(roles)))
    )
    strict = speaking(base, *rules)
    if not refuses:
        assert prompt_ids(strict, dialogue)
        return
    with pytest.raises(DialogueRefused) as refused:
        prompt_ids(strict, dialogue)
    assert one_line(refused.value)
