"""`Batcher`: continuous batching (Orca, Yu et al., OSDI 2022) on the engine's forward pass.

One thread. Each turn it lets go of requests that have ended, computes a part of the prompts that
wait (chunked prefill, Agrawal et al. 2023: parts of `prefill_tokens`, and no further part once that
many were computed, so that a long prompt does not hold up the replies that run), and then one token
for every running reply in one pass, whatever versions they are on. Requests therefore join and
leave at token boundaries; a request that is cancelled, or whose time is up, costs no further token.

A prompt is always computed alone and in the same parts, and each row draws by its own random
numbers, so a reply does not depend on which others run beside it, up to rounding: sums in a matrix
product may be ordered otherwise in a larger batch (docs/serving.md says what that means in which
number format).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import torch

from autodidact.engine.cache import STEP, SlotCache
from autodidact.engine.core import Engine, Version
from autodidact.engine.sampling import Drawn, Row, draw
from autodidact.errors import Busy
from autodidact.types.chat import Finish, SamplingParams

log = logging.getLogger(__name__)
IDLE_S = 5.0
"""After so long without a request the cache's memory is given back."""
Observe = Callable[[str, float], None]


class Ticket:
    """A request's place. Iterate it once, for token ids; `draws` gives them with log-probabilities.

    It ends with `finish` set, or raises what ended it (Busy where its turn did not come in time).
    """

    def __init__(self, version: Version, prompt: Sequence[int], params: SamplingParams) -> None:
        self.version = version
        self.prompt = tuple(prompt)
        self.params = params
        self.row = Row.of(params, self.prompt)
        self.finish: Finish | None = None
        self.born = time.monotonic()
        self.last_at = 0.0
        self.tokens = 0
        self.next_token = 0
        self.cached = 0
        """Positions of its slot that hold its keys and values."""
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


class Batcher:
    """Start it with `start`, end it with `close`. `submit` may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_concurrent: int = 32,
        max_queue: int = 64,
        prefill_tokens: int = 128,
        queue_seconds: float = 30.0,
        reply_seconds: float = 600.0,
        observe: Observe = lambda name, value: None,
    ) -> None:
        self._engine = engine
        self._most = max_concurrent
        self._queue_limit = max_queue
        self._chunk = prefill_tokens
        self._queue_s = queue_seconds
        self._reply_s = reply_seconds
        self._observe = observe
        self._waiting: deque[Ticket] = deque()
        self._rows: list[Ticket] = []
        self._cache = SlotCache()
        self._filling: Ticket | None = None
        self._filled = 0
        self._scratch = SlotCache()
        self._work = threading.Condition()
        self._closing = False
        self._reply_time = 1.0
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
        return len(self._rows) + (self._filling is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def cache_bytes(self) -> int:
        return self._cache.bytes + self._scratch.bytes

    def check(self) -> None:
        """Raises Busy if a request that came now would be refused."""
        over = self.running + self.waiting
        if over >= self._most + self._queue_limit:
            self.counts["refused_total"] += 1
            raise Busy(f"the server is busy with {over} other replies", self._retry_after())

    def submit(self, version: Version, prompt: Sequence[int], params: SamplingParams) -> Ticket:
        """Let a request wait for its turn. Raises Busy when too many do."""
        ticket = Ticket(version, prompt, params)
        with self._work:
            self.check()
            if self._closing:
                raise Busy("the server is shutting down", 5)
            self.counts["requests_total"] += 1
            self._waiting.append(ticket)
            self._work.notify()
        return ticket

    def _retry_after(self) -> int:
        """Seconds until a place should be free: the queue ahead at the pace of recent replies."""
        turns = 1 + len(self._waiting) / self._most
        return max(1, min(60, round(self._reply_time * turns)))

    # The thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._wait()
            try:
                self._turn()
            except Exception as error:
                log.exception("a pass of the model failed; its requests end")
                self._fail(error)
        self._fail(Busy("the server is shutting down", 5))

    def _wait(self) -> None:
        """Until there is something to do; idle for a while, give memory back."""
        with self._work:
            while not (self._closing or self._waiting or self._rows or self._filling):
                if not self._work.wait(IDLE_S):
                    self._cache.clear()
                    self._scratch.clear()

    def _turn(self) -> None:
        self._let_go()
        budget = self._chunk
        while budget > 0 and self._next_to_fill():
            budget -= self._fill_or_end(self._chunk)
            self._let_go()  # who cancelled during a pass costs no other one
        if self._rows:
            self._step()

    def _let_go(self) -> None:
        """Cancelled and late requests leave; those that wait too long are told so."""
        now = time.monotonic()
        for ticket in list(self._rows):
            if ticket.leaving:
                self._end(ticket, ticket.left_as)
            elif now - ticket.born > self._reply_s:
                self._end(ticket, "time")
        filling = self._filling
        if filling is not None and (filling.leaving or now - filling.born > self._reply_s):
            self._filling = None
            self._finish(filling, filling.left_as if filling.leaving else "time")
        with self._work:
            waiting, self._waiting = self._waiting, deque()
            for ticket in waiting:
                if ticket.leaving:
                    self._finish(ticket, ticket.left_as)
                elif now - ticket.born > self._queue_s:
                    self.counts["refused_total"] += 1
                    ticket.put(
                        Busy(
                            f"no turn came within {self._queue_s:.0f} s: "
                            f"{len(self._rows)} replies run",
                            self._retry_after(),
                        )
                    )
                else:
                    self._waiting.append(ticket)

    def _next_to_fill(self) -> bool:
        """Whether a prompt is, or can now be, on its way into the cache."""
        if self._filling is None and len(self._rows) < self._most:
            with self._work:
                if self._waiting:
                    self._filling, self._filled = self._waiting.popleft(), 0
                    self._observe("queue_seconds", time.monotonic() - self._filling.born)
        return self._filling is not None

    def _fill_or_end(self, most: int) -> int:
        """As `_fill`; a prompt that the model fails on ends alone, for it has no slot yet."""
        ticket = self._filling
        try:
            return self._fill(most)
        except Exception as error:
            if ticket is None or ticket is not self._filling:
                raise
            log.exception("a prompt could not be computed; its request ends")
            self._filling = None
            self._scratch.clear()
            ticket.put(error)
            return most

    def _fill(self, most: int) -> int:
        """Compute the next part of a prompt; with its end the reply's first token. Returns how many
        tokens it took."""
        ticket = self._filling
        assert ticket is not None
        begin, end = self._filled, min(len(ticket.prompt), self._filled + most)
        device = self._engine.base.device
        positions = torch.arange(begin, end, device=device)
        self._scratch.begin(1, end)
        logits = self._engine.forward(
            [ticket.version],
            input_ids=torch.tensor([ticket.prompt[begin:end]], device=device),
            attention_mask=(positions[:, None] >= torch.arange(end, device=device))[None, None],
            position_ids=positions[None],
            past_key_values=self._scratch,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._filled = end
        self.counts["prompt_tokens_total"] += end - begin
        if end == len(ticket.prompt):
            self._cache.take(len(self._rows), self._scratch, end)
            self._filling = None
            ticket.cached = end - 1  # `_hand_on` counts the position that gave the token
            self._rows.append(ticket)
            self._hand_on(draw(logits, [ticket.row]), [ticket])
        return end - begin

    def _step(self) -> None:
        """One token for every running reply."""
        rows = self._rows
        device = self._engine.base.device
        lengths = [ticket.cached for ticket in rows]
        seen = -(-(max(lengths) + 1) // STEP) * STEP
        positions = torch.tensor(lengths, device=device)
        self._cache.begin(len(rows), seen, positions)
        mask = torch.arange(seen, device=device) <= positions[:, None]
        logits = self._engine.forward(
            [ticket.version for ticket in rows],
            input_ids=torch.tensor([[ticket.next_token] for ticket in rows], device=device),
            attention_mask=mask[:, None, None],
            position_ids=positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.counts["steps_total"] += 1
        self._hand_on(draw(logits, [ticket.row for ticket in rows]), list(rows))

    def _hand_on(self, drawn: Sequence[Drawn], tickets: Sequence[Ticket]) -> None:
        """Give out a pass's tokens. Slots move only once all of them are counted."""
        now = time.monotonic()
        ended: list[tuple[Ticket, Finish]] = []
        for ticket, one in zip(tickets, drawn, strict=True):
            ticket.cached += 1
            if one.token in self._engine.base.stop_ids:
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
        """Take a running reply out; the last slot moves into its place."""
        slot, last = self._rows.index(ticket), len(self._rows) - 1
        moved = self._rows.pop()
        if slot != last:
            self._cache.move(last, slot, moved.cached)
            self._rows[slot] = moved
        self._finish(ticket, finish)

    def _finish(self, ticket: Ticket, finish: Finish | None) -> None:
        if finish is None:
            self.counts["cancelled_total"] += 1
        took = time.monotonic() - ticket.born
        self._reply_time += 0.1 * (took - self._reply_time)
        self._observe("reply_seconds", took)
        ticket.finish = finish
        ticket.put(None)

    def _fail(self, error: Exception) -> None:
        """End everything with an error; the caches may be torn and are dropped."""
        with self._work:
            tickets = [*self._rows, *([self._filling] if self._filling else []), *self._waiting]
            self._waiting.clear()
        self._rows, self._filling = [], None
        self._cache.clear()
        self._scratch.clear()
        for ticket in tickets:
            ticket.put(error)
