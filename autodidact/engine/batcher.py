"""`Batcher`: continuous batching (Orca, Yu et al., OSDI 2022) on the engine's forward pass.

One thread. Each turn it lets go of requests that have ended, computes a part of the prompts that
wait (chunked prefill, Agrawal et al. 2023: parts of `prefill_tokens`, and no further part once that
many were computed, so that a long prompt does not hold up the replies that run), and then one token
for every running reply in one pass, whatever versions they are on. Requests therefore join and
leave at token boundaries; a request that is cancelled, or whose time is up, costs no further token.

A prompt is always computed alone, and each row draws by its own random numbers, so a reply does not
depend on which others run beside it or came before, up to rounding: sums in a matrix product may be
ordered otherwise in a larger batch (docs/serving.md says what that means in which number format).

Left to others: how many requests there may be. Whoever submits bounds that (`web.limits` for the
server); all of them are taken on, `max_concurrent` run, and the others wait here, so that one of
them joins at the very token at which a place in the batch comes free. What is bounded here is time,
which only the batch can tell: a turn that does not come within `queue_seconds`, a reply that takes
longer than `reply_seconds`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from autodidact.engine.core import Engine
from autodidact.engine.sampling import Drawn
from autodidact.engine.slots import Slots
from autodidact.engine.tickets import Ticket
from autodidact.engine.versions import Version
from autodidact.errors import Busy
from autodidact.types.chat import Finish, SamplingParams

log = logging.getLogger(__name__)
IDLE_S = 5.0
"""After so long without a request the cache's memory is given back."""
Observe = Callable[[str, float], None]


class Batcher:
    """Start it with `start`, end it with `close`. `submit` may be called from any thread.

    `replying` is told by the batch's thread, before each turn and when there is nothing left to do,
    whether it is at a reply.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_concurrent: int = 32,
        prefill_tokens: int = 128,
        prefix_bytes: int = 0,
        queue_seconds: float = 30.0,
        reply_seconds: float = 600.0,
        observe: Observe = lambda name, value: None,
        replying: Callable[[bool], None] = lambda at_work: None,
    ) -> None:
        self._stop_ids = engine.base.stop_ids
        self._most = max_concurrent
        self._chunk = prefill_tokens
        self._queue_s = queue_seconds
        self._reply_s = reply_seconds
        self._observe = observe
        self._replying = replying
        self._waiting: deque[Ticket] = deque()
        self._slots = Slots(engine, prefill_tokens, prefix_bytes)
        self._work = threading.Condition()
        self._closing = False
        self.counts = dict.fromkeys(
            ("requests_total", "tokens_total", "prompt_tokens_total", "cancelled_total",
             "refused_total", "steps_total"), 0,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    # From any thread ---------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; what still runs or waits ends with Busy."""
        with self._work:
            self._closing = True
            self._work.notify()
        if self._thread.is_alive():
            self._thread.join(10)

    @property
    def running(self) -> int:
        return self._slots.running

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def cache_bytes(self) -> int:
        return self._slots.bytes

    @property
    def prefix_bytes(self) -> int:
        return self._slots.prefix_bytes

    @property
    def reused(self) -> int:
        """Tokens of prompts that earlier requests had computed."""
        return self._slots.reused

    def submit(self, version: Version, prompt: Sequence[int], params: SamplingParams) -> Ticket:
        """Let a request wait for its turn. Raises Busy once the batcher is closed."""
        ticket = Ticket(version, prompt, params, time.monotonic())
        with self._work:
            if self._closing:
                raise Busy("the server is shutting down", 5)
            self.counts["requests_total"] += 1
            self._waiting.append(ticket)
            self._work.notify()
        return ticket

    # The thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._wait()
            self._replying(not self._closing)
            try:
                self._turn()
            except Exception as error:
                log.exception("a pass of the model failed; its requests end")
                self._fail(error)
        self._fail(Busy("the server is shutting down", 5))
        self._replying(False)

    def _wait(self) -> None:
        """Until there is something to do; idle for a while, give memory back."""
        with self._work:
            while not (self._closing or self._waiting or self._slots.running):
                self._replying(False)
                if not self._work.wait(IDLE_S):
                    self._slots.rest()

    def _turn(self) -> None:
        self._let_go()
        budget = self._chunk
        while budget > 0 and self._next_to_fill():
            budget -= self._fill()
            self._let_go()  # who cancelled during a pass costs no other one
        if rows := list(self._slots.rows):
            drawn = self._slots.step()
            self.counts["steps_total"] += 1
            self._hand_on(drawn, rows)

    def _let_go(self) -> None:
        """Cancelled and late requests leave; those that wait too long are told so."""
        now = time.monotonic()
        for ticket in list(self._slots.rows):
            if ticket.leaving or now - ticket.born > self._reply_s:
                self._end(ticket, ticket.left_as if ticket.leaving else "time")
        filling = self._slots.filling
        if filling is not None and (filling.leaving or now - filling.born > self._reply_s):
            self._slots.stop_filling()
            self._finish(filling, filling.left_as if filling.leaving else "time")
        with self._work:
            waiting, self._waiting = self._waiting, deque()
            for ticket in waiting:
                if ticket.leaving:
                    self._finish(ticket, ticket.left_as)
                elif now - ticket.born > self._queue_s:
                    self.counts["refused_total"] += 1
                    running = len(self._slots.rows)
                    ticket.put(
                        Busy(f"no turn came within {self._queue_s:g} s: {running} replies run")
                    )
                else:
                    self._waiting.append(ticket)

    def _next_to_fill(self) -> bool:
        """Whether a prompt is, or can now be, on its way into the cache."""
        if self._slots.filling is None and len(self._slots.rows) < self._most:
            with self._work:
                if self._waiting:
                    ticket = self._waiting.popleft()
                    self._slots.begin(ticket)
                    self._observe("queue_seconds", time.monotonic() - ticket.born)
        return self._slots.filling is not None

    def _fill(self) -> int:
        """A part of a prompt, with its end the reply's first token. Returns how many tokens it
        took. A prompt that the model fails on ends alone, for it has no slot yet."""
        ticket = self._slots.filling
        assert ticket is not None
        try:
            took, first = self._slots.fill()
        except Exception as error:
            if ticket is not self._slots.filling:
                raise
            log.exception("a prompt could not be computed; its request ends")
            self._slots.drop_filling()
            ticket.put(error)
            return self._chunk
        self.counts["prompt_tokens_total"] += took
        if first is not None:
            self._hand_on([first], [ticket])
        return took

    def _hand_on(self, drawn: Sequence[Drawn], tickets: Sequence[Ticket]) -> None:
        """Give out a pass's tokens."""
        now = time.monotonic()
        ended: list[tuple[Ticket, Finish]] = []
        for ticket, one in zip(tickets, drawn, strict=True):
            if one.token in self._stop_ids:
                ended.append((ticket, "stop"))
                continue
            if ticket.tokens:
                self._observe("token_gap_seconds", now - ticket.last_at)
            else:
                self._observe("first_token_seconds", now - ticket.born)
            ticket.tokens += 1
            ticket.next_token, ticket.last_at = one.token, now
            self.counts["tokens_total"] += 1
            ticket.put(one)
            if ticket.tokens >= ticket.params.max_new_tokens:
                ended.append((ticket, "length"))
        for ticket, finish in ended:
            self._end(ticket, finish)

    def _end(self, ticket: Ticket, finish: Finish | None) -> None:
        """Take a running reply out."""
        self._slots.remove(ticket)
        self._finish(ticket, finish)

    def _finish(self, ticket: Ticket, finish: Finish | None) -> None:
        if finish is None:
            self.counts["cancelled_total"] += 1
        self._observe("reply_seconds", time.monotonic() - ticket.born)
        ticket.finish = finish
        ticket.put(None)

    def _fail(self, error: Exception) -> None:
        """End everything with an error; the caches may be torn and are dropped."""
        with self._work:
            tickets = [*self._slots.clear(), *self._waiting]
            self._waiting.clear()
        for ticket in tickets:
            ticket.put(error)
