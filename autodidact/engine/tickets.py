"""`Ticket`: what a request holds while it waits and runs, and where its reader finds its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue

from autodidact.engine.sampling import Drawn, Row
from autodidact.engine.versions import Version
from autodidact.types.chat import Finish, SamplingParams


class Ticket:
    """A request's place. Iterate it once, for token ids; `draws` gives them with log-probabilities.

    It ends with `finish` set, or raises what ended it (Busy where its turn did not come in time).
    `born` is the time of its arrival, by the monotonic clock.
    """

    def __init__(
        self, version: Version, prompt: Sequence[int], params: SamplingParams, born: float
    ) -> None:
        self.version = version
        self.prompt = tuple(prompt)
        self.params = params
        self.row = Row.of(params, self.prompt)
        self.finish: Finish | None = None
        self.born = born
        self.last_at = 0.0
        self.tokens = 0
        self.next_token = 0
        self.held: list[int] = []
        """The tokens whose keys and values its slot holds."""
        self._leaving: tuple[Finish | None] | None = None
        self._queue: SimpleQueue[Drawn | Exception | None] = SimpleQueue()

    @property
    def leaving(self) -> bool:
        """Whether no further token is wanted."""
        return self._leaving is not None

    @property
    def cancelled(self) -> bool:
        return self._leaving == (None,)

    def cancel(self) -> None:
        """No further token is computed for it; nothing more is waited for."""
        if self.finish is None:
            self.leave(None)
            self._queue.put(None)

    def leave(self, finish: Finish | None) -> None:
        """No further token is computed for it: its reader has all of it, or (None) has gone."""
        if self._leaving is None:
            self._leaving = (finish,)

    @property
    def left_as(self) -> Finish | None:
        """The `finish` that it leaves with."""
        return self._leaving[0] if self._leaving else None

    def draws(self) -> Iterator[Drawn]:
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.cancel()

    def __iter__(self) -> Iterator[int]:
        return (drawn.token for drawn in self.draws())

    def put(self, item: Drawn | Exception | None) -> None:
        """For the batcher: hand on a token, or the end."""
        self._queue.put(item)
