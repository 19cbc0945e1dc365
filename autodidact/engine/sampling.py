"""The next token of each row of a batch, by the row's own parameters and its own random numbers.

Pure functions of logits. The order is that of `transformers`' generation: repetition, presence and
frequency penalties, temperature, top-k, top-p, min-p. A token is drawn by inverting the cumulative
distribution of what is left, likeliest first, at one uniform number of the row's own generator;
so a row's draw does not depend on which rows are beside it.

Most vocabularies are long and most of their tail is never drawn: only the likeliest CANDIDATES are
sorted, and the whole row only where those do not hold what top-p and min-p leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from autodidact.types.chat import SamplingParams

CANDIDATES = 256


@dataclass
class Row:
    """What sampling knows of one request. `seen` is its prompt's tokens."""

    params: SamplingParams
    seen: frozenset[int] = frozenset()
    generator: torch.Generator = field(default_factory=torch.Generator)
    counts: Counter[int] = field(default_factory=Counter)
    """How often each token is in the reply so far."""

    @classmethod
    def of(cls, params: SamplingParams, prompt: Sequence[int]) -> Row:
        generator = torch.Generator()
        if params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(params.seed)
        return cls(params, frozenset(prompt), generator)


@dataclass(frozen=True)
class Drawn:
    """A token, and where asked for its log-probability and the likeliest tokens at its place."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def draw(logits: torch.Tensor, rows: Sequence[Row]) -> list[Drawn]:
    """One token a row of (rows, vocabulary) logits; counts it in the row."""
    raw = logits.float()
    shaped = _penalised(raw, rows)
    tokens = shaped.argmax(-1).tolist()
    for number, row in enumerate(rows):
        if row.params.temperature > 0:
            tokens[number] = -1
    free = [i for i, token in enumerate(tokens) if token < 0]
    if free:
        picked = _sample(shaped[free] if len(free) < len(rows) else shaped, [rows[i] for i in free])
        for i, token in zip(free, picked, strict=True):
            tokens[i] = token
    drawn = []
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        row.counts[token] += 1
        drawn.append(_explained(raw[i], token, row.params.logprobs))
    return drawn


def _penalised(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """The logits after the penalties; the same tensor if there are none."""
    shaped = logits
    for i, row in enumerate(rows):
        params = row.params
        plain = not params.presence_penalty and not params.frequency_penalty
        if params.repetition_penalty == 1 and plain:
            continue
        if shaped is logits:
            shaped = logits.clone()
        if params.repetition_penalty != 1:
            seen = torch.tensor(sorted(row.seen | row.counts.keys()), device=logits.device)
            values = shaped[i, seen]
            factor = params.repetition_penalty
            shaped[i, seen] = torch.where(values > 0, values / factor, values * factor)
        if not plain and row.counts:
            told = torch.tensor(list(row.counts), device=logits.device)
            often = torch.tensor(list(row.counts.values()), device=logits.device)
            shaped[i, told] -= params.presence_penalty + params.frequency_penalty * often
    return shaped


def _sample(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """One token a row, all of them with a temperature above 0."""
    points = torch.stack([torch.rand((), generator=r.generator, dtype=torch.float64) for r in rows])
    params = [row.params for row in rows]
    picked = [-1] * len(rows)
    # How `topk` orders equal logits depends on how many are asked for, so a row is grouped by what
    # it needs itself, not by what its neighbours need.
    groups: dict[int, list[int]] = {}
    for i, p in enumerate(params):
        if not p.top_k and p.top_p >= 1 and not p.min_p:
            picked[i] = _any(logits[i], p.temperature, points[i])
        else:
            groups.setdefault(p.top_k if p.top_k <= CANDIDATES else 0, []).append(i)
    for top_k, members in groups.items():
        for most in (top_k or CANDIDATES, logits.shape[-1]):
            open_ = [i for i in members if picked[i] < 0]
            if open_:
                part = logits if len(open_) == len(rows) else logits[open_]
                found = _pick(part, [params[i] for i in open_], points[open_], most)
                for i, token in zip(open_, found, strict=True):
                    picked[i] = token
    return picked


def _any(logits: torch.Tensor, temperature: float, point: torch.Tensor) -> int:
    """One token of a whole row, which needs no sorting. `logits`: (vocabulary,)."""
    # From the likeliest down: divided by a tiny temperature, logits themselves would overflow.
    heat = max(temperature, 1e-6)
    total = ((logits - logits.max()) / heat).softmax(-1).double().cumsum(-1).cpu()
    place = int(torch.searchsorted(total, point * total[-1], right=True))
    return min(place, len(total) - 1)


def _pick(
    logits: torch.Tensor, params: Sequence[SamplingParams], points: torch.Tensor, most: int
) -> list[int]:
    """One token a row from its `most` likeliest; −1 where the row's limits may leave others too.

    `points`: (rows,), uniform in [0, 1). Top-p is of what top-k left, min-p of the likeliest.
    """
    most = min(most, logits.shape[-1])
    likeliest, tokens = logits.topk(most, dim=-1)
    heat = _column([p.temperature for p in params]).to(logits)
    top_k = _column([p.top_k or logits.shape[-1] for p in params])
    # A sum over the whole row is dear, and needed only where top-k does not cut the row.
    summed = likeliest if bool((top_k <= most).all()) else logits
    norm = (summed / heat).logsumexp(-1, keepdim=True)
    shares = (likeliest / heat - norm).exp().double().cpu()
    left = torch.arange(most) < top_k
    # A row that top-k does not limit has all of its probability, the tail included.
    mass = torch.where(top_k <= most, (shares * left).sum(-1, keepdim=True), 1.0)
    before = shares.cumsum(-1) - shares
    left &= (before < _column([p.top_p for p in params]) * mass) | (
        _column([p.top_p for p in params]) >= 1
    )
    left &= shares >= _column([p.min_p for p in params]) * shares[:, :1]
    left[:, 0] = True
    kept = (shares * left).cumsum(-1)
    chosen = (kept <= points[:, None] * kept[:, -1:]).sum(-1)
    last = left.sum(-1) - 1  # what is left is a beginning of the row
    sure = ~left[:, -1] | (top_k[:, 0] <= most) | (most == logits.shape[-1])
    # Where top-k leaves some that are not here, top-p's share is of a sum that is not known yet.
    cut = (top_k > most) & (top_k < logits.shape[-1])
    sure &= ~(cut & (_column([p.top_p for p in params]) < 1))[:, 0]
    chosen = torch.minimum(chosen, last)
    ids = tokens.cpu().gather(-1, chosen[:, None])[:, 0]
    return torch.where(sure, ids, -1).tolist()


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _explained(logits: torch.Tensor, token: int, asked: int | None) -> Drawn:
    if asked is None:
        return Drawn(token)
    logprobs = logits.log_softmax(-1)
    likeliest = logprobs.topk(min(asked, len(logprobs)))
    top = tuple(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))
    return Drawn(token, float(logprobs[token]), top)
