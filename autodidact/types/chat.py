"""What a chat is made of: messages, sampling, pieces of a reply, and who answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class SamplingParams:
    """How one reply is sampled. Temperature 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 set no
    limit. They apply in the order of `transformers`: penalties, temperature, top-k, top-p, min-p.

    `repetition_penalty` (Keskar et al. 2019) counts the prompt too; `presence_penalty` and
    `frequency_penalty` (OpenAI) count the reply only. A reply ends before the first of the `stop`
    strings. `logprobs` asks for the log-probability of each token under the model itself (before
    penalties and temperature) and of that many likeliest others; None asks for none.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_new_tokens: int = 512
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


Finish = Literal["stop", "length", "time"]
"""Why a reply ended: by itself or at a stop string, at its maximum of tokens, at its deadline."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a reply, its log-probability in nats, and the likeliest tokens at its place."""

    token: str
    data: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed reply: new text and how many tokens it took. The last one carries
    `finish` (its text may be empty). `logprobs` has an entry a token, where they were asked for."""

    text: str
    tokens: int
    finish: Finish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ServedModel:
    """A name that a request may give as `model`. `created` is Unix time."""

    id: str
    version: int
    created: float
    role: Literal["newest", "pinned", "kept", "base"]


@dataclass(frozen=True)
class Prepared:
    """A request that is sure to fit: the prompt's tokens, the room left, the version that answers
    (0 is the untouched base) and the parameters with every blank filled in."""

    version: int
    prompt_ids: tuple[int, ...]
    room: int
    params: SamplingParams
    handle: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class ModelStatus:
    """What serves now. `live` is the version (0: the untouched base), `since` its Unix time,
    `parameters` the base's (0 until it has loaded)."""

    state: Literal["loading", "ready", "failed"]
    name: str
    fallback: bool
    context: int
    live: int
    since: float
    reason: str = ""
    rejected: str = ""
    parameters: int = 0
