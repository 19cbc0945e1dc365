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
class Usage:
    """Tokens of a prompt and of the whole reply to it, as the backend counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed reply: new text and how many tokens it took (0 where the backend does
    not tell). The last one carries `finish` (its text may be empty), and `usage` where only the end
    tells; that goes before any sum of `tokens`. `logprobs` has an entry a token, where they were
    asked for."""

    text: str
    tokens: int
    finish: Finish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    usage: Usage | None = None


@dataclass(frozen=True)
class ServedModel:
    """A name that a request may give as `model`. `created` is Unix time. Without versions,
    `version` and `role` are None."""

    id: str
    version: int | None
    created: float
    role: Literal["newest", "pinned", "kept", "base"] | None


@dataclass(frozen=True)
class AcceptedRequest:
    """A request that is taken on: who answers, and the parameters with every blank filled in.

    `answers` is a name that may be asked for as `model`. `version` is that model's number (0 is the
    untouched base), None where it has none. `prompt_tokens` and `room`, the longest reply, are None
    where they are not known beforehand; where they are, the request is sure to fit. `handle` is the
    generator's own.
    """

    answers: str
    version: int | None
    prompt_tokens: int | None
    room: int | None
    params: SamplingParams
    handle: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class ModelStatus:
    """What serves now. `context` is the longest prompt and reply in tokens (0 until it has loaded,
    None where no one tells), `live` the version (0: the untouched base; None: it has no versions),
    `since` its Unix time, `parameters` the base's (0 until it has loaded, or where no one tells),
    `origin` where the base is from ("hub", "folder", "package", "bundled") and `choice` why it is
    this one, `runtime` what computes replies and why, all "" where no one tells.
    """

    state: Literal["loading", "ready", "failed"]
    name: str
    fallback: bool
    context: int | None
    live: int | None
    since: float
    reason: str = ""
    rejected: str = ""
    parameters: int = 0
    origin: str = ""
    choice: str = ""
    runtime: str = ""
