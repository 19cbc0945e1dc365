"""How sequences go through the adapted model in a step of training.

A loss asks for the logits after certain tokens of certain sequences; a `Passes` gives them, with
their graph, and those of the untouched base without one. There are two ways, with equal numbers:

- `PaddedPasses`, the plain way: sequences beside each other, filled up to the longest, through the
  whole model.
- `PackedPasses`, which computes nothing twice and nothing that nobody asks for. The sequences of a
  step stand behind each other in one row, each seeing itself and the opening of the chat template,
  which is there once; the hidden states below the lowest adapted block, which training does not
  change, are computed once a sequence and kept; so are the base's last hidden states on anchors;
  and the output head is applied only where logits are asked for.

Packing needs a decoder that takes embeddings and a mask of its own, and does nothing between its
blocks (Llama, Qwen 2 and 3, Mistral, SmolLM). `passes_for` tries it on the base at hand against the
plain way, and takes the plain way where the numbers differ.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from autodidact.models.attention import attention_of
from autodidact.models.loading import TOLERANCE, LoadedBase
from autodidact.models.prompts import opening_ids, prompt_ids
from autodidact.types.chat import Message

KEPT_BYTES = 256_000_000
"""Of hidden states that are kept; what was used longest ago goes first and is computed again."""
_AT_ONCE = 512
"""Tokens of one pass through the blocks below."""

Ids = Sequence[int]
Wanted = Sequence[Sequence[int]]
"""For each sequence the positions after whose token logits are asked for."""


class Passes(Protocol):
    """Both methods give logits of shape (positions asked for, vocabulary), in order."""

    def logits(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        """Of the adapted model, with their graph."""
        ...

    def teacher(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        """Of the untouched base, without a graph."""
        ...

    def beside(self, rows: Sequence[Ids], wanted: Wanted) -> bool:
        """Announce that the logits of these are asked for next but one. Whether they will be
        computed together with those asked for next, and so go back together."""
        ...


def passes_for(
    base: LoadedBase,
    model: PeftModel,
    first_block: int,
    packed: bool,
    parts: int = 1,
) -> Passes:
    """Packed passes where they are wanted and give the numbers of the plain ones on this base.
    `first_block`: the lowest one with an adapter. `parts`: so many times less is kept."""
    plain = PaddedPasses(base, model)
    if not packed or not _has_parts(base.model):
        return plain
    window = attention_of(base.model.config, base.model.dtype).narrowest
    try:
        fast = PackedPasses(base, model, first_block, parts)
        if not _agree(base, fast, plain):
            return plain
        return fast if window is None else WindowedPasses(fast, plain, window)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return plain  # a decoder that takes no embeddings, or no mask of this shape


class PaddedPasses:
    """The plain way."""

    def __init__(self, base: LoadedBase, model: PeftModel) -> None:
        self._base = base
        self._model = model

    def logits(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        ids, mask = padded(self._base, rows)
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        row = [i for i, positions in enumerate(wanted) for _ in positions]
        return cast(torch.Tensor, logits[row, [p for positions in wanted for p in positions]])

    @torch.no_grad()
    def teacher(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        with self._model.disable_adapter():
            return self.logits(rows, wanted)

    def beside(self, rows: Sequence[Ids], wanted: Wanted) -> bool:
        return False


class WindowedPasses:
    """Packed where every layer sees all of every row, else the plain way: a packed row's mask knows
    no sliding windows."""

    def __init__(self, packed: Passes, plain: Passes, window: int) -> None:
        self._packed = packed
        self._plain = plain
        self._window = window

    def logits(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        return self._for(rows).logits(rows, wanted)

    def teacher(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        return self._for(rows).teacher(rows, wanted)

    def beside(self, rows: Sequence[Ids], wanted: Wanted) -> bool:
        return self._for(rows).beside(rows, wanted)

    def _for(self, rows: Sequence[Ids]) -> Passes:
        return self._packed if max(map(len, rows)) <= self._window else self._plain


class PackedPasses:
    """Each row at once, nothing twice. Memory: `KEPT_BYTES` in so many `parts`, and the activations
    of a step."""

    def __init__(
        self, base: LoadedBase, model: PeftModel, first_block: int, parts: int = 1
    ) -> None:
        self._device = base.device
        self._opening = tuple(opening_ids(base))
        tree = cast(PreTrainedModel, model.get_base_model())
        blocks = _trunk(base.model).layers
        count = len(blocks)
        self._below = _part(base.model, slice(first_block), normed=False)
        self._above = _part(tree, slice(first_block, count), normed=True)
        self._untouched = _part(base.model, slice(first_block, count), normed=True)
        self._head = _part(base.model, slice(count, count), normed=False)
        self._hidden = _Kept(KEPT_BYTES // parts)
        self._last = _Kept(KEPT_BYTES // 4 // parts)
        self._announced: tuple[object, Sequence[Ids], Wanted] | None = None
        self._ahead: tuple[object, torch.Tensor] | None = None

    def logits(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        key = _key(rows, wanted)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == key:
            return ahead[1]
        announced, self._announced = self._announced, None
        if announced is None or announced[0] == key:
            return self._compute_logits(rows, wanted)
        other, more, also = announced
        counts = [sum(map(len, positions)) for positions in (wanted, also)]
        # Not as slices: going back, each of them would make a gradient of all the logits.
        both = self._compute_logits([*rows, *more], [*wanted, *also])
        mine, later = torch.split(both, counts)
        self._ahead = other, later
        return mine

    def beside(self, rows: Sequence[Ids], wanted: Wanted) -> bool:
        """A row of more tokens is computed faster a token."""
        self._announced, self._ahead = (_key(rows, wanted), rows, wanted), None
        return True

    def _compute_logits(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        layout = _Layout(self._opening, rows)
        where = torch.tensor(layout.places(wanted), device=self._device)
        out = self._above(**self._inputs(layout, rows), logits_to_keep=where)
        return cast(torch.Tensor, out.logits[0])

    @torch.no_grad()
    def teacher(self, rows: Sequence[Ids], wanted: Wanted) -> torch.Tensor:
        key = _key(rows, wanted)
        last = self._last.get(key)
        if last is None:
            layout = _Layout(self._opening, rows)
            states = _trunk(self._untouched)(**self._inputs(layout, rows)).last_hidden_state
            last = states[:, layout.places(wanted)].clone()
            self._last.put(key, last)
        return cast(torch.Tensor, self._head(inputs_embeds=last, use_cache=False).logits[0])

    def _inputs(self, layout: _Layout, rows: Sequence[Ids]) -> dict[str, Any]:
        states = self._states(rows)
        if layout.opening:
            states = [self._opening_states(), *states]
        return {
            "inputs_embeds": torch.cat(states)[None],
            **layout.placing(self._device),
            "use_cache": False,
        }

    def _states(self, rows: Sequence[Ids]) -> list[torch.Tensor]:
        """The hidden states below of each row, without those of the opening: (tokens, width)."""
        found: dict[tuple[int, ...], torch.Tensor] = {}
        missing: list[tuple[int, ...]] = []
        for row in dict.fromkeys(map(tuple, rows)):
            states = self._hidden.get(row)
            if states is None:
                missing.append(row)
            else:
                found[row] = states
        while missing:
            some = [missing.pop()]
            while missing and sum(map(len, some)) + len(missing[-1]) <= _AT_ONCE:
                some.append(missing.pop())
            found.update(zip(some, self._compute(some), strict=True))
        return [found[tuple(row)] for row in rows]

    def _opening_states(self) -> torch.Tensor:
        states = self._hidden.get(self._opening)
        return self._compute([])[0] if states is None else states

    @torch.no_grad()
    def _compute(self, rows: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        layout = _Layout(self._opening, rows) if rows else _Layout((), [self._opening])
        out = _trunk(self._below)(
            input_ids=torch.tensor([layout.ids], device=self._device),
            **layout.placing(self._device),
            use_cache=False,
        ).last_hidden_state[0]
        made = [out[begin:end].clone() for begin, end in layout.spans]
        for row, states in zip(rows or [self._opening], made, strict=True):
            self._hidden.put(row, states)
        return made


def _key(rows: Sequence[Ids], wanted: Wanted) -> object:
    return (*map(tuple, rows), *map(tuple, wanted))


class _Layout:
    """Several sequences as one row of tokens. What begins with `opening` goes without it and sees
    the one copy in front; nothing sees another sequence. Positions count on within a sequence."""

    def __init__(self, opening: Ids, rows: Sequence[Ids]) -> None:
        width = len(opening)
        under = [width > 0 and tuple(row[:width]) == tuple(opening) for row in rows]
        self.opening = any(under)
        self._skip = [width if shared else 0 for shared in under]
        self.ids: list[int] = list(opening) if self.opening else []
        self._positions = list(range(len(self.ids)))
        self._owner = [0] * len(self.ids)
        self._under = [True]
        self.spans: list[tuple[int, int]] = []
        for number, (row, skip) in enumerate(zip(rows, self._skip, strict=True), start=1):
            begin = len(self.ids)
            self.ids += row[skip:]
            self._positions += range(skip, len(row))
            self._owner += [number] * (len(row) - skip)
            self._under.append(skip > 0)
            self.spans.append((begin, len(self.ids)))

    def places(self, wanted: Wanted) -> list[int]:
        """Where the positions of the rows stand in the one row; those of the opening, in front."""
        return [
            begin + position - skip if position >= skip else position
            for (begin, _), skip, positions in zip(self.spans, self._skip, wanted, strict=True)
            for position in positions
        ]

    def placing(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Position ids (1, tokens) and the mask (1, 1, tokens, tokens) of who sees whom."""
        owner = torch.tensor(self._owner)
        under = torch.tensor(self._under)[owner]
        order = torch.arange(len(owner))
        mine = owner[None] == owner[:, None]
        shared = (owner == 0)[None] & under[:, None]
        mask = (order[None] <= order[:, None]) & (mine | shared)
        return {
            "position_ids": torch.tensor([self._positions], device=device),
            "attention_mask": mask[None, None].to(device),
        }


class _Kept:
    """Tensors by key, up to so many bytes; what was used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._held: OrderedDict[object, torch.Tensor] = OrderedDict()

    def get(self, key: object) -> torch.Tensor | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: object, value: torch.Tensor) -> None:
        self._held[key] = value
        self._bytes += value.nbytes
        while self._bytes > self._limit and self._held:
            self._bytes -= self._held.popitem(last=False)[1].nbytes


def padded(base: LoadedBase, rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences as ids and attention mask, both of shape (rows, longest)."""
    shape = (len(rows), max(map(len, rows)))
    ids = torch.full(shape, base.pad_id)
    mask = torch.zeros(shape, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(list(row))
        mask[i, : len(row)] = 1
    return ids.to(base.device), mask.to(base.device)


# The model in parts -------------------------------------------------------------------------------


def _has_parts(model: PreTrainedModel) -> bool:
    trunk = getattr(model, "model", None)
    parts = (getattr(trunk, "layers", None), getattr(trunk, "norm", None))
    return isinstance(parts[0], nn.ModuleList) and isinstance(parts[1], nn.Module)


def _trunk(model: PreTrainedModel) -> Any:
    """The decoder without its output head."""
    return model.model


def _part(model: PreTrainedModel, blocks: slice, *, normed: bool) -> PreTrainedModel:
    """A model of some of the blocks, over the very same modules; without the last norm unless
    `normed`."""
    config = copy.deepcopy(model.config)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = kinds[blocks]
    trunk = _shallow(_trunk(model))
    chosen = list(trunk.layers)[blocks]
    config.num_hidden_layers = len(chosen)
    trunk._modules["layers"] = nn.ModuleList(chosen)
    if not normed:
        trunk._modules["norm"] = nn.Identity()
    whole = _shallow(model)
    whole._modules["model"] = trunk
    whole.config = trunk.config = config
    return cast(PreTrainedModel, whole)


def _shallow(module: Any) -> Any:
    """The same module with children that can be replaced."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def _agree(base: LoadedBase, fast: PackedPasses, plain: PaddedPasses) -> bool:
    """Whether both ways give the same logits, on two questions and a text: those of the model with
    its adapter (one that goes on says something else than the base) and those of the base."""
    asked = ("Who keeps the mill?", "Since when has there been a bridge over the river?")
    rows = [prompt_ids(base, [Message("user", question)]) for question in asked]
    text = base.tokenizer("The mill stands by the river.", add_special_tokens=False).input_ids
    rows.append([base.start_id, *text])
    wanted = [[len(row) - 2, len(row) - 1] for row in rows]
    limit = TOLERANCE.get(base.model.dtype, TOLERANCE[torch.bfloat16])
    for way, plainly in (
        (_values(fast.logits), _values(plain.logits)),
        (fast.teacher, plain.teacher),
    ):
        right = plainly(rows, wanted)
        if not ((way(rows, wanted) - right).abs().max() <= limit * right.abs().max()):
            return False
    return True


def _values(
    logits: Callable[[Sequence[Ids], Wanted], torch.Tensor],
) -> Callable[[Sequence[Ids], Wanted], torch.Tensor]:
    """The same without a graph."""
    return torch.no_grad()(logits)
