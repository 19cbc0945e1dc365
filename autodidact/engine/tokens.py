"""Tokens as text and bytes, and text as tokens, outside of dialogues."""

from __future__ import annotations

import re

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from autodidact.engine.sampling import Drawn
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import neutral
from autodidact.types.chat import TokenLogprob

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
"""How byte-level BPE (GPT-2's and its successors') spells bytes."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "\u2581"
"""How SentencePiece spells a byte, and a space."""


def text_ids(base: LoadedBase, text: str) -> list[int]:
    """A text as the base has read texts; where its tokenizer begins texts with a token, with it."""
    return list(base.tokenizer(neutral(base, text)).input_ids) or [base.start_id]


def explain(base: LoadedBase, drawn: Drawn) -> TokenLogprob:
    """A drawn token that has a log-probability, with the likeliest others, in words."""
    assert drawn.logprob is not None
    text, data = token_text(base, drawn.token)
    top = tuple((*token_text(base, token), value) for token, value in drawn.top)
    return TokenLogprob(text, data, drawn.logprob, top)


def token_text(base: LoadedBase, token: int) -> tuple[str, bytes]:
    """A token's text and bytes. A token may be a part of a character: its text then has U+FFFD."""
    text = str(base.tokenizer.decode([token]))
    piece = str(base.tokenizer.convert_ids_to_tokens(token))
    if (byte := byte_of(base.tokenizer._tokenizer, token)) is not None:
        return text, bytes([byte])
    if SPACE in piece:
        text = piece.replace(SPACE, " ")
        return text, text.encode()
    if text == piece:  # "é" may be a letter, or how byte-level BPE spells a byte
        return text, text.encode()
    if piece and all(character in _BYTES for character in piece):
        return text, bytes(_BYTES[character] for character in piece)
    return text, text.encode()


def byte_of(tokenizer: Tokenizer, token: int) -> int | None:
    """The byte that a token of SentencePiece's byte fallback stands for; None for any other token,
    also for one that only looks like it."""
    piece = tokenizer.id_to_token(token) or ""
    if not _BYTE.fullmatch(piece) or tokenizer.decode([token]) == piece:
        return None
    return int(piece[3:5], 16)
