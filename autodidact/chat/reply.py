"""MAIN PATH of answering: load the conversation, look up passages, fit both into the context,
prepare, store the question, stream, store the reply.

Synchronous: the caller decides on which thread. `begin` either raises a `GeneratorError` and
stores nothing, or returns a `Reply` that is sure to be made; its `stream` may then be read once.
A reply stays on the version that `prepare` picked, whatever goes live meanwhile.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator as Stream
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypedDict

from autodidact.chat import memory, retrieval
from autodidact.chat.memory import Turn, Window
from autodidact.chat.retrieval import Library
from autodidact.errors import GeneratorError, NotReady
from autodidact.store.chat import Begun, ChatStore, Finish, StoredMessage
from autodidact.types.chat import AcceptedRequest, Delta, ModelStatus, SamplingParams
from autodidact.types.documents import Passage
from autodidact.types.protocols import Cancellable, CountsTokens, Generator

DEFAULT_LENGTH = 512
OPEN_ROOM = 4096
"""The longest reply that is offered where the context is not known. A longer one may be asked for:
whether it fits is then for the generator to say."""


class UnknownConversation(GeneratorError):
    status = 404


class ModelFailed(NotReady):
    pass


class NotAskedLast(GeneratorError):
    status = 409


@dataclass(frozen=True)
class Ask:
    """A question and how it wants to be answered. `max_length` None takes the room there is, up to
    the default.

    `again` asks the last question of the conversation once more: earlier replies to it stay stored,
    and the model does not see them. `retrieval` None leaves it to the setting and the model's size
    whether passages are looked up.
    """

    message: str
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_length: int | None = None
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    conversation_id: str | None = None
    model: str | None = None
    again: bool = False
    retrieval: Literal["on", "off"] | None = None


class Context(TypedDict):
    """How much of the context a conversation takes, as far as it is known."""

    used: int
    limit: int | None
    """None where the context is not known."""
    dropped: int
    """Earlier turns that the model does not see."""
    room: int
    """The longest reply that is offered."""


def reserve(context: int | None) -> int:
    """Tokens that are kept free for a reply of default length by leaving out the oldest turns."""
    return DEFAULT_LENGTH if context is None else min(DEFAULT_LENGTH, context // 4)


def room(context: int | None, used: int) -> int:
    """The longest reply that is offered when `used` tokens of the context are taken."""
    return OPEN_ROOM if context is None else max(context - used, reserve(context))


def begin(
    ask: Ask, store: ChatStore, generator: Generator, library: Library | None = None
) -> Reply:
    """Make sure that a reply can be made, and store the question. Without a library every reply
    comes from memory."""
    status = _ready(generator)
    messages = _messages(ask, store)
    repeated = _last_question(ask, messages) if ask.again else None
    past = memory.turns(messages, before=repeated)
    wanted = library is not None and (
        library.wanted(status) if ask.retrieval is None else ask.retrieval == "on"
    )
    found = library.find(ask.message) if library is not None and wanted else ()
    fits = memory.budget(generator, status.context, ask.max_length or reserve(status.context))
    window, passages = _window(ask, past, found, fits)
    params = SamplingParams(
        temperature=ask.temperature,
        top_p=ask.top_p,
        top_k=ask.top_k,
        max_new_tokens=ask.max_length or _length(generator, status.context, window),
        seed=secrets.randbelow(2**32) if ask.seed is None else ask.seed,
        min_p=ask.min_p,
        repetition_penalty=ask.repetition_penalty,
        presence_penalty=ask.presence_penalty,
        frequency_penalty=ask.frequency_penalty,
        stop=ask.stop,
    )
    prepared = generator.prepare(window.messages, params, ask.model)
    begun = store.begin(
        ask.conversation_id,
        ask.message,
        question_id=repeated,
        version=prepared.version,
        sampling=asdict(prepared.params),
        prompt_tokens=prepared.prompt_tokens,
        dropped=window.dropped,
        passages=passages,
        answers=prepared.answers,
    )
    return Reply(store, generator, prepared, begun, status.context, window.dropped, passages)


class Generation:
    """A generator's stream that any thread may cancel.

    `stream` may be read once. After `cancel` it yields nothing more and has no last delta with a
    `finish`. It ends at once where the generator's own stream is `Cancellable`, else at that
    stream's next delta.
    """

    def __init__(self, generator: Generator, prepared: AcceptedRequest) -> None:
        self._generator = generator
        self._prepared = prepared
        self._deltas: Iterator[Delta] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        deltas: object = self._deltas
        if isinstance(deltas, Cancellable):
            deltas.cancel()

    def stream(self) -> Stream[Delta, None, None]:
        # Set before the look at `_cancelled`: whichever comes first, one of the two is seen.
        self._deltas = deltas = self._generator.stream(self._prepared)
        try:
            while not self._cancelled:
                delta = next(deltas, None)
                if delta is None or self._cancelled:
                    return
                yield delta
        finally:
            close = getattr(deltas, "close", None)
            if close is not None:
                close()


class Reply:
    """One reply on its way. `stream` moves the figures on; they are final when it has ended."""

    def __init__(
        self,
        store: ChatStore,
        generator: Generator,
        prepared: AcceptedRequest,
        begun: Begun,
        limit: int | None,
        dropped: int,
        passages: tuple[Passage, ...] = (),
    ) -> None:
        self.prepared = prepared
        self.prompt_tokens = prepared.prompt_tokens
        self.begun = begun
        self.passages = passages
        self.text = ""
        self.tokens = 0
        self.finish: Finish = "open"
        self.first_token_ms: int | None = None
        self.tok_s: float | None = None
        self._store = store
        self._generation = Generation(generator, prepared)
        self._limit = limit
        self._dropped = dropped
        self._first: tuple[float, int] | None = None

    @property
    def context(self) -> Context:
        """How much of the context the conversation takes by now, and turns it had to leave out."""
        return _context((self.prompt_tokens or 0) + self.tokens, self._limit, self._dropped)

    def stream(self) -> Stream[Delta, None, None]:
        """The reply's deltas. Closing the stream, or `cancel`, stops the generation.

        However it ends, the reply is stored as far as it came: finished, `stopped` by the reader or
        `failed` (the exception goes on to the caller).
        """
        deltas = self._generation.stream()
        started = time.perf_counter()
        finish: Finish = "stopped"
        try:
            for delta in deltas:
                self._take(delta, time.perf_counter() - started)
                finish = delta.finish or finish
                yield delta
        except Exception:
            finish = "failed"
            raise
        finally:
            deltas.close()
            self.finish = finish
            self._store.finish(
                self.begun.reply_id,
                self.text,
                finish,
                tokens=self.tokens,
                tok_s=self.tok_s,
                first_token_ms=self.first_token_ms,
                prompt_tokens=self.prompt_tokens,
            )

    def cancel(self) -> None:
        """Stop the generation from any thread, within one token."""
        self._generation.cancel()

    def withdraw(self) -> None:
        """Take back question and reply: for a request that was refused after all."""
        self._store.withdraw(self.begun)

    def _take(self, delta: Delta, elapsed_s: float) -> None:
        self.text += delta.text
        self.tokens += delta.tokens
        if delta.usage is not None:
            self.prompt_tokens = delta.usage.prompt_tokens
            self.tokens = delta.usage.completion_tokens
        if self._first is None and (delta.tokens or delta.text):
            self._first = (elapsed_s, max(1, self.tokens))
            self.first_token_ms = round(elapsed_s * 1000)
        elif self._first is not None and (delta.tokens or delta.usage is not None):
            since, before = self._first
            self.tok_s = round(max(0, self.tokens - before) / max(elapsed_s - since, 1e-3), 1)


def _length(generator: Generator, context: int | None, window: Window) -> int:
    """The longest reply where the reader did not say: the room there is, up to the default."""
    if context is None or not isinstance(generator, CountsTokens):
        return max(1, reserve(context))
    return max(1, min(DEFAULT_LENGTH, context - window.size))


def _window(
    ask: Ask,
    past: Sequence[Turn],
    found: Sequence[Passage],
    fits: memory.Budget,
) -> tuple[Window, tuple[Passage, ...]]:
    """The prompt's messages, and those of the passages found that are in it.

    Old turns give way to passages, the last one never does: the question may be about it. Where
    that is not enough, fewer passages are used, then none.
    """
    alone = memory.fit(past, ask.message, fits.size, fits.prompt)
    passages = retrieval.within(found, ask.message, fits.size, fits.passages)
    last_seen = alone.dropped < len(past)
    while passages:
        quoted = retrieval.prompt(ask.message, passages)
        window = memory.fit(past, quoted, fits.size, fits.prompt)
        if window.size <= fits.prompt and (window.dropped < len(past) or not last_seen):
            return window, passages
        passages = passages[:-1]
    return alone, ()


def _ready(generator: Generator) -> ModelStatus:
    status = generator.status()
    if status.state == "loading":
        raise NotReady("the model is loading", retry_after_s=5)
    if status.state == "failed":
        raise ModelFailed(f"the model could not be loaded: {status.reason}", retry_after_s=60)
    return status


def _messages(ask: Ask, store: ChatStore) -> list[StoredMessage]:
    if ask.conversation_id is None:
        return []
    if store.conversation(ask.conversation_id) is None:
        raise UnknownConversation("conversation_id: no such conversation")
    return store.messages(ask.conversation_id)


def _last_question(ask: Ask, messages: list[StoredMessage]) -> int:
    asked = [message for message in messages if message.role == "user"]
    if not asked or asked[-1].content != ask.message:
        raise NotAskedLast("again: message is not the last question of this conversation")
    return asked[-1].id


def stored_context(messages: Sequence[StoredMessage], limit: int | None) -> Context:
    """`Reply.context` of a stored conversation, as its last reply left it."""
    replies = [message for message in messages if message.role == "assistant"]
    if not replies:
        return _context(0, limit, 0)
    return _context(replies[-1].prompt_tokens + replies[-1].tokens, limit, replies[-1].dropped)


def _context(used: int, limit: int | None, dropped: int) -> Context:
    return {"used": used, "limit": limit, "dropped": dropped, "room": room(limit, used)}
