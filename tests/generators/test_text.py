"""A reply's text is what its tokens add to the prompt's, for every way of writing spaces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from autodidact.engine.sampling import Drawn
from autodidact.engine.tokens import byte_of
from autodidact.generators.text import TextStream
from autodidact.types.chat import SamplingParams

TEXTS = ["Once upon a time the mill stood by the river.", "Wer, wenn nicht wir? Ja!", "a  b   c"]
LLAMA = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def _spaces() -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "byte-level": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
    "llama": (_spaces(), None, decoders.Sequence([*LLAMA, decoders.Strip(" ", 1, 0)])),
    "gemma": (normalizers.Replace(" ", "▁"), None, decoders.Sequence(LLAMA)),
    "metaspace": (None, pre_tokenizers.Metaspace(), decoders.Metaspace()),
}
TEXT = st.text(st.sampled_from("abAB .,?!\nßüé"), min_size=1, max_size=24)


@cache
def tokenizer(kind: str) -> Tokenizer:
    normalizer, pre, decoder = KINDS[kind]
    made = Tokenizer(models.BPE(byte_fallback=kind in ("llama", "gemma")))
    if normalizer is not None:
        made.normalizer = normalizer
    if pre is not None:
        made.pre_tokenizer = pre
    made.decoder = decoder
    spelt = [f"<0x{byte:02X}>" for byte in range(256)] if kind in ("llama", "gemma") else []
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", *spelt],
        initial_alphabet=[*pre_tokenizers.ByteLevel.alphabet()] if kind == "byte-level" else [],
        show_progress=False,
    )
    made.train_from_iterator([*TEXTS, "abAB .,?!\nßüé"], trainer)
    told = json.loads(made.to_str())  # bytes are not special, as they are in no real tokenizer
    told["added_tokens"] = [t for t in told["added_tokens"] if t["content"] == "<s>"]
    return Tokenizer.from_str(json.dumps(told))


class Said:
    """A ticket whose tokens are known."""

    def __init__(self, prompt: Sequence[int], reply: Sequence[int]) -> None:
        self.prompt, self.reply = tuple(prompt), reply
        self.params = SamplingParams()
        self.finish, self.cancelled = "stop", False

    def draws(self) -> Iterator[Drawn]:
        return iter([Drawn(token, None, ()) for token in self.reply])

    def cancel(self) -> None:
        pass


def streamed(kind: str, prompt: Sequence[int], reply: Sequence[int]) -> list[str]:
    base = SimpleNamespace(tokenizer=SimpleNamespace(_tokenizer=tokenizer(kind)))
    return [delta.text for delta in TextStream(base, Said(prompt, reply))]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(before=TEXT, after=TEXT)
def test_prompt_and_text_are_what_all_tokens_say(kind: str, before: str, after: str) -> None:
    made = tokenizer(kind)
    prompt, reply = made.encode(before).ids, made.encode(after).ids
    known, whole = made.decode(prompt), made.decode([*prompt, *reply])
    if not known or not whole.startswith(known):
        return  # nothing stands before it
    assert known + "".join(streamed(kind, prompt, reply)) == whole


@pytest.mark.parametrize("kind", ["llama", "metaspace"])
def test_the_first_word_of_a_text_keeps_its_space(kind: str) -> None:
    made = tokenizer(kind)
    prompt, reply = made.encode("Once upon").ids, made.encode("a time").ids
    assert made.decode(reply) == "a time", "alone it would lose it"
    assert "".join(streamed(kind, prompt, reply)) == " a time"
    assert "".join(streamed(kind, [0], reply)) == "a time", "nothing stands before it"


def test_a_prompt_that_ends_in_a_damaged_character_is_not_repeated() -> None:
    made = tokenizer("byte-level")
    prompt, reply = made.encode("a b \ufffd").ids, made.encode(" c").ids
    assert "".join(streamed("byte-level", prompt, reply)) == " c"


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_bytes_that_are_no_character_end_no_reply(kind: str) -> None:
    """`tokenizers` takes back what a run of bytes said as soon as one of them is no UTF-8, and its
    stream then ends in an error: at a high temperature replies broke off."""
    made = tokenizer(kind)

    def spelt(data: bytes) -> list[int]:
        return [made.token_to_id(f"<0x{byte:02X}>") for byte in data]

    word = made.encode("time" if kind == "llama" else " time").ids
    prompt = made.encode("Once\n").ids
    for data, text in (
        (b"j\xff", "j\ufffd"),
        (b"\xff\xfej", "\ufffd\ufffdj"),
        ("é".encode(), "é"),
        (b"\xe2\x82", "\ufffd"),
        (b"\n", "\n"),
    ):
        assert "".join(streamed(kind, prompt, [*spelt(data), *word])) == text + " time", data
        assert "".join(streamed(kind, [0], [*spelt(data), *word])) == text + " time", data
    assert "".join(streamed(kind, prompt, spelt("é".encode()[:1]))) == "", "not complete"


def test_a_token_that_only_looks_like_a_byte_is_text() -> None:
    made = tokenizer("byte-level")
    made.add_tokens(["<0x0A>"])
    try:
        [token] = made.encode("<0x0A>").ids
        assert byte_of(made, token) is None
        assert "".join(streamed("byte-level", made.encode("a").ids, [token])) == "<0x0A>"
    finally:
        tokenizer.cache_clear()
