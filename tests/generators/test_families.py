"""Nine families, each with its way of writing spaces: what is streamed, what log-probabilities are
told of, and what all tokens together say are the same to the letter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from autodidact.engine import Engine
from autodidact.engine.batcher import Batcher
from autodidact.generators.text import TextStream
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import SamplingParams
from tests.families import SERVED, made
from tests.generators.test_text import tokenizer

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
SPACES = {
    "llama": "byte-level",
    "qwen2": "byte-level",
    "gemma3": "gemma",
    "mistral, a window": "llama",
    "gpt2": "byte-level",
    "opt": "byte-level",
    "phi": "byte-level",
    "gpt_neox": "byte-level",
    "phi3, a window": "llama",
}
PROMPTS = ("Once upon", "Wer, wenn nicht wir? ", "a  b", "ß")


def base_of(family: str, llama: LoadedBase) -> LoadedBase:
    kind, given = SERVED[family]
    spelt = tokenizer(SPACES[family])
    whole = PreTrainedTokenizerFast(tokenizer_object=spelt)
    base = made(kind, {**given, "vocab_size": spelt.get_vocab_size()}, llama)
    return replace(base, tokenizer=whole)


@pytest.mark.parametrize("family", SPACES)
def test_text_and_tokens_agree_at_every_boundary(family: str, llama: LoadedBase) -> None:
    """Chance draws the tokens, so that parts of characters and doubled spaces occur."""
    base = base_of(family, llama)
    spelt = base.tokenizer._tokenizer
    params = [
        SamplingParams(temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=40, seed=n, logprobs=1)
        for n in range(3)
    ]
    asked = [(spelt.encode(text).ids, one) for text in PROMPTS for one in params]
    engine = Engine(base)
    batcher = Batcher(engine, prefill_tokens=16)
    streams = [TextStream(base, batcher.submit(engine.untouched, *one)) for one in asked]
    again = [batcher.submit(engine.untouched, *one) for one in asked]
    batcher.start()
    try:
        replies = [list(stream) for stream in streams]
        drawn = [list(ticket) for ticket in again]
    finally:
        batcher.close()
    compared = 0
    for (prompt, _), deltas, tokens in zip(asked, replies, drawn, strict=True):
        text = "".join(delta.text for delta in deltas)
        told = [one for delta in deltas for one in delta.logprobs]
        assert len(told) == sum(delta.tokens for delta in deltas) == len(tokens) == 40
        data = b"".join(one.data for one in told)
        assert data.decode("utf-8", "replace").replace("\ufffd", "") == text.replace("\ufffd", "")
        ours, theirs = spelt.decode(prompt) + text, spelt.decode([*prompt, *tokens])
        if SPACES[family] == "byte-level":  # up to the first character that is damaged
            ours, theirs = (said.partition("\ufffd")[0] for said in (ours, theirs))
        elif "\ufffd" in ours + theirs:  # `tokenizers` makes more marks of a run of bytes
            continue
        assert ours == theirs
        compared += len(theirs)
    assert compared or SPACES[family] != "byte-level"
