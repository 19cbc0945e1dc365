"""What OpenAI's clients get: the objects of `/v1/chat/completions` and `/v1/completions`.

`Choice` gathers one reply from its deltas; a `Form` (chat or text) writes whole replies and chunks
of streamed ones. Token log-probabilities are in nats; one below OpenAI's floor is told as -9999.
"""

from __future__ import annotations

import codecs
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autodidact.types.chat import AcceptedRequest, Delta, TokenLogprob, Usage

FLOOR = -9999.0
"""OpenAI's word for "very unlikely"; JSON knows no infinity."""


@dataclass
class Choice:
    """One of the replies to a prompt, as far as it has come."""

    index: int
    text: str = ""
    tokens: int = 0
    finish: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    usage: Usage | None = None

    def take(self, delta: Delta) -> None:
        self.text += delta.text
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        if delta.usage is not None:
            self.usage, self.tokens = delta.usage, delta.usage.completion_tokens
        if delta.finish is not None:
            self.finish = "stop" if delta.finish == "stop" else "length"


class Form(ABC):
    """The objects of one endpoint, all about one request: one id and one time throughout."""

    whole: str
    chunk: str
    prefix: str

    def __init__(self, prepared: Sequence[AcceptedRequest], explained: bool, usage: bool) -> None:
        """`prepared`: one for each prompt, all of one version. `explained`: with log-probabilities;
        `usage`: chunks have the field `usage`."""
        self.explained = explained
        self._usage_in_chunks = usage
        self._prompt_tokens = [one.prompt_tokens for one in prepared]
        first, version = prepared[0], prepared[0].version
        self._head = {
            "id": self.prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": first.answers,
            # A version's number under which nothing else is ever served, 0 for the base.
            "system_fingerprint": first.answers if version is None else f"autodidact@{version}",
        }

    def reply(self, choices: Sequence[Choice]) -> dict[str, Any]:
        written = [self._choice(choice) for choice in choices]
        return {
            **self._head, "object": self.whole, "choices": written, "usage": self._usage(choices),
        }  # fmt: skip

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        """The chunk before the first text of a choice, if there is one."""
        return None

    def piece(self, choice: Choice, delta: Delta) -> dict[str, Any] | None:
        """A chunk with the text of a delta that `choice` has not taken yet."""
        if not delta.text and not (self.explained and delta.logprobs):
            return None
        return self._chunk(self._piece(choice, delta))

    def closing(self, choice: Choice) -> dict[str, Any]:
        """The last chunk of a choice, with the reason why it ended."""
        return self._chunk({**self._empty(choice), "finish_reason": choice.finish})

    def usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The last chunk of a stream, where the usage was asked for."""
        return {**self._chunk(), "usage": self._usage(choices)}

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        usage = {"usage": None} if self._usage_in_chunks else {}
        return {**self._head, "object": self.chunk, "choices": list(choices), **usage}

    def _usage(self, choices: Sequence[Choice]) -> dict[str, int] | None:
        """None where no one has told how long the prompt is."""
        each = len(choices) // len(self._prompt_tokens)
        prompt = 0
        for number, known in enumerate(self._prompt_tokens):
            replies = choices[number * each : (number + 1) * each]
            told = [choice.usage.prompt_tokens for choice in replies if choice.usage is not None]
            longest = known if known is not None else max(told, default=None)
            if longest is None:
                return None
            prompt += longest
        completion = sum(choice.tokens for choice in choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    @abstractmethod
    def _choice(self, choice: Choice) -> dict[str, Any]: ...

    @abstractmethod
    def _piece(self, choice: Choice, delta: Delta) -> dict[str, Any]: ...

    @abstractmethod
    def _empty(self, choice: Choice) -> dict[str, Any]: ...


class ChatForm(Form):
    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def opening(self, choice: Choice) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""}
        return self._chunk({**self._empty(choice), "delta": delta})

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.finish,
        }

    def _piece(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        return {
            **self._empty(choice),
            "delta": {"content": delta.text},
            "logprobs": self._logprobs(delta.logprobs),
        }

    def _empty(self, choice: Choice) -> dict[str, Any]:
        return {"index": choice.index, "delta": {}, "logprobs": None, "finish_reason": None}

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.explained:
            return None
        content = [
            {
                **_told(one.token, one.data, one.logprob),
                "top_logprobs": [_told(*t) for t in one.top],
            }
            for one in tokens
        ]
        return {"content": content, "refusal": None}


class TextForm(Form):
    whole = chunk = "text_completion"
    prefix = "cmpl-"

    def __init__(
        self,
        prepared: Sequence[AcceptedRequest],
        explained: bool,
        usage: bool,
        prompts: Sequence[str],
        replies: int,
    ) -> None:
        """`replies`: to each of the prompts."""
        super().__init__(prepared, explained, usage)
        self._prompts = prompts
        self._replies = replies
        self._offsets: dict[int, _Offsets] = {}

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            **self._empty(choice),
            "text": choice.text,
            "logprobs": self._logprobs(choice, choice.logprobs),
            "finish_reason": choice.finish,
        }

    def _piece(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        return {
            **self._empty(choice),
            "text": delta.text,
            "logprobs": self._logprobs(choice, delta.logprobs),
        }

    def _empty(self, choice: Choice) -> dict[str, Any]:
        return {"index": choice.index, "text": "", "logprobs": None, "finish_reason": None}

    def _logprobs(self, choice: Choice, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.explained:
            return None
        prompt = self._prompts[choice.index // self._replies]
        offsets = self._offsets.setdefault(choice.index, _Offsets(len(prompt)))
        return {
            "tokens": [one.token for one in tokens],
            "token_logprobs": [_floored(one.logprob) for one in tokens],
            # The token that was drawn is always among them, as with OpenAI.
            "top_logprobs": [
                {token: _floored(value) for token, _, value in one.top}
                | {one.token: _floored(one.logprob)}
                for one in tokens
            ],
            "text_offset": [offsets.next(one.data) for one in tokens],
        }


class _Offsets:
    """Where tokens begin, in characters from the prompt's first; a character may take several
    tokens, which then all begin where it does."""

    def __init__(self, start: int) -> None:
        self._at = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def next(self, data: bytes) -> int:
        at = self._at
        self._at += len(self._decoder.decode(data))
        return at


def _told(token: str, data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": _floored(logprob), "bytes": list(data)}


def _floored(logprob: float) -> float:
    return max(logprob, FLOOR)
