"""A version as the examiner sees it: replies, likelihoods and blocks through the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from autodidact.engine import Engine
from autodidact.engine.examinee import Examinee
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import dialogue_ids, prompt_ids
from tests.versions import load_adapter, save_adapter
from tests.workplace import ask

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = [[7 + i, 20, 31 + i, 44][: 2 + i % 3] for i in range(6)]


def replying(base: LoadedBase, replies: Sequence[Sequence[int]]) -> Examinee:
    """An examinee whose engine writes these tokens, whatever is asked."""

    class Scripted(Engine):
        def complete(self, *asked: Any, **more: Any) -> list[list[int]]:
            return [list(reply) for reply in replies]

    engine = Scripted(base)
    return Examinee(engine, engine.untouched)


def greedy(base: LoadedBase, prompt: Sequence[int], most: int) -> tuple[list[int], bool]:
    """By hand, a token at a time: the reply and whether it ended by itself."""
    ids = list(prompt)
    for _ in range(most):
        with torch.inference_mode():
            token = int(base.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in base.stop_ids:
            return ids[len(prompt) :], True
        ids.append(token)
    return ids[len(prompt) :], False


@pytest.mark.parametrize("family", ["llama", "smollm2", "opt", "qwen2"])
def test_a_reply_is_the_greedy_one_and_ended_if_a_stop_token_came(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    base = tiny_base(family)
    engine = Engine(base)
    found = Examinee(engine, engine.untouched).replies(PROMPTS, 12)
    for prompt, reply in zip(PROMPTS, found, strict=True):
        ids, ended = greedy(base, prompt, 12)
        assert reply == (base.tokenizer.decode(ids), ended)


@pytest.mark.parametrize("family", ["llama", "smollm2"])
def test_control_tokens_stay_visible_in_replies_to_chats_only(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    """In a chat they are a fault that the check must see; in an answer they are no part of it."""
    base = tiny_base(family)
    words = base.tokenizer("a model", add_special_tokens=False).input_ids
    mark = "<|begin_of_text|>" if family == "llama" else "<|im_start|>"
    [number] = base.tokenizer(mark, add_special_tokens=False).input_ids
    subject = replying(base, [[*words, number]])
    [(text, ended)] = subject.replies([[5]], 30)
    assert mark in text
    assert ended
    assert mark not in subject.complete([ask("Who?")], 30)[0]


def test_a_reply_that_fills_the_limit_has_not_ended(llama: LoadedBase) -> None:
    subject = replying(llama, [[60] * 4, [60] * 3, []])
    assert [ended for _, ended in subject.replies([[5]] * 3, 4)] == [False, True, True]


def test_questions_are_asked_in_the_form_of_a_chat(llama: LoadedBase) -> None:
    engine = Engine(llama)
    subject = Examinee(engine, engine.untouched)
    questions = [ask("Who built the lighthouse?"), ask("Where is it?")]
    ids = engine.complete(engine.untouched, [prompt_ids(llama, q) for q in questions], 8)
    decoded = [llama.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    assert subject.complete(questions, 8) == decoded


def logps(base: LoadedBase, ids: Sequence[int]) -> list[float]:
    """Log-probability of each token but the first, by hand."""
    with torch.inference_mode():
        table = base.model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)
    return [float(table[i - 1, ids[i]]) for i in range(1, len(ids))]


def test_a_score_is_the_mean_over_the_answer_and_its_end_mark(llama: LoadedBase) -> None:
    engine = Engine(llama)
    dialogues = [ask("Who built it?", "Ida Marsh"), ask("When?", "1874")]
    found = Examinee(engine, engine.untouched).score(dialogues)
    for dialogue, score in zip(dialogues, found, strict=True):
        ids, start = dialogue_ids(llama, dialogue)
        answer = logps(llama, ids)[start - 1 :]
        assert ids[-1] in llama.stop_ids
        assert score == pytest.approx(sum(answer) / len(answer), abs=1e-4)


def test_a_block_s_nll_is_the_mean_over_all_tokens_but_the_given_one(llama: LoadedBase) -> None:
    engine = Engine(llama)
    blocks = [[(3 * i + j * j) % 300 + 5 for j in range(10 + i)] for i in range(4)]
    found = Examinee(engine, engine.untouched).nll(blocks)
    for block, value in zip(blocks, found, strict=True):
        by_hand = logps(llama, block)
        assert value == pytest.approx(-sum(by_hand) / len(by_hand), abs=1e-4)


def test_it_is_the_version_that_is_examined(llama: LoadedBase, tmp_path: Any) -> None:
    engine = Engine(llama)
    version = load_adapter(engine, 1, save_adapter(llama, tmp_path / "adapter"))
    base, other = Examinee(engine, engine.untouched), Examinee(engine, version)
    assert base.nll(PROMPTS) != other.nll(PROMPTS)
    assert base.replies(PROMPTS, 8) != other.replies(PROMPTS, 8)


@pytest.mark.parametrize("family", ["llama", "smollm2", "opt", "qwen2"])
def test_what_is_given_of_an_answer_is_not_scored(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    base = tiny_base(family)
    engine = Engine(base)
    examinee = Examinee(engine, engine.untouched)
    begin, whole = "The mill was built by ", "The mill was built by Ida Marsh."
    dialogue = ask("Who built the mill?", whole)
    [score] = examinee.score([dialogue], [begin])
    ids, start = dialogue_ids(base, dialogue)
    shown = [str(base.tokenizer.decode(ids[start:n])) for n in range(start, len(ids) + 1)]
    split = start + max(n for n, text in enumerate(shown) if len(text.strip()) < len(begin))
    [expected] = engine.score(engine.untouched, [(ids[:split], ids[split:])])
    assert split > start
    assert score == pytest.approx(expected, abs=1e-5)
    assert examinee.score([dialogue], [""]) == pytest.approx(examinee.score([dialogue]), abs=1e-6)
