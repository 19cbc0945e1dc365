"""Whether the passes that serve say what the model itself says: tried before anything is served.

The passes of `slots.py` bring their own positions, masks and cache. Families that take their
positions or windows from elsewhere (ALiBi, GPT-Neo's local layers) would go on without an error and
say something else. Those of `TRIED` are compared with `transformers` by this project's tests, with
and beyond their windows; any other one is compared when it is loaded.
"""

from __future__ import annotations

import logging
from typing import cast

import torch

from autodidact.engine.cache import SlotCache
from autodidact.engine.core import Engine
from autodidact.engine.slots import prompt_pass, token_pass
from autodidact.errors import BaseUnfit
from autodidact.models.loading import TOLERANCE, LoadedBase

TRIED = frozenset(
    {"gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "opt", "phi", "phi3",
     "qwen2", "qwen3"}
)  # fmt: skip
"""`model_type`s in config.json."""
TRIAL = 1024
"""Tokens that an unknown family is tried on, or beyond its window where that is wider."""
PART = 128

log = logging.getLogger(__name__)


def require_exact(engine: Engine) -> None:
    """Compare, where the family is not known to be served exactly. Raises BaseUnfit where the
    logits differ, or the model takes no such passes."""
    kind = str(engine.base.model.config.model_type)
    if kind in TRIED:
        return
    log.info("%s is a family that was not tried yet: comparing its passes, for some seconds", kind)
    try:
        apart = _apart(engine)
    except torch.OutOfMemoryError:
        raise  # another time it may do
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseUnfit(f"{_unfit(kind)} (it fails: {line})") from error
    if not apart <= TOLERANCE[engine.base.model.dtype]:
        raise BaseUnfit(f"{_unfit(kind)} (logits differ by {apart:.1%} of the largest)")


def _unfit(kind: str) -> str:
    return (
        f"{kind}: replies that share a batch would not be what this model says; choose another "
        "model, and another home for it"
    )


@torch.inference_mode()
def _apart(engine: Engine) -> float:
    """By how much the logits of the serving passes differ from the model's own, at most, in parts
    of the largest: at the end of each part of a prompt, and for two tokens of a batch of two."""
    base = engine.base
    beyond = (engine.attention.narrowest or 0) + PART
    length = min(base.context, max(TRIAL, beyond)) - 2
    vocabulary = int(base.model.config.get_text_config().vocab_size)
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (1, length + 2), generator=dice)
    short = min(PART, length) // 2
    ends = [*range(PART, length, PART), length, short]
    wanted = sorted({*(end - 1 for end in ends), length, length + 1, short, short + 1})
    expected = dict(zip(wanted, _plain(base, ids, wanted), strict=True))
    tokens, version = ids[0].tolist(), engine.untouched
    scratch, cache = SlotCache(), SlotCache()
    differences = []
    for slot, end in enumerate((length, short)):
        for begin in range(0, end, PART):
            upto = min(begin + PART, end)
            found = prompt_pass(engine, scratch, version, tokens, begin, upto)
            differences.append(found[0].float() - expected[upto - 1])
        cache.take(slot, scratch, end)
    for more in range(2):
        at = [length + more, short + more]
        found = token_pass(engine, cache, [version, version], [tokens[p] for p in at], at)
        differences += [row.float() - expected[p] for row, p in zip(found, at, strict=True)]
    largest = torch.stack(list(expected.values())).abs().max()
    return float(torch.stack(differences).abs().max() / largest)


def _plain(base: LoadedBase, ids: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """The model's own logits at these positions: (positions, vocabulary). All of them, in float32,
    may be more than the model takes."""
    given = {"input_ids": ids.to(base.device), "use_cache": False}
    keep = torch.tensor(positions, device=base.device)
    try:
        logits = base.model(**given, logits_to_keep=keep).logits[0]
    except TypeError:  # a family without it
        logits = base.model(**given).logits[0]
    if len(logits) != len(positions):
        logits = logits[keep]
    return cast(torch.Tensor, logits.float())
