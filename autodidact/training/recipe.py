"""What the size of a model decides about its training.

Two kinds of model. What was pretrained at length (from `PRETRAINED_FROM` parameters) knows the
language: a fact takes it some sixteen exposures, on the upper half of its blocks. A tiny one, as
the bundled starter, learns language and fact at once, with all of its blocks and many exposures.
The figures for SmolLM2-135M were chosen by measurement (`benchmarks/learning/recipe.py`,
docs/lab-log.md); those above 200M parameters were not, no such model was at hand: a rate that falls
with the size, as usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autodidact.settings import TrainingSettings

if TYPE_CHECKING:
    from autodidact.models.loading import LoadedBase

PRETRAINED_FROM = 100_000_000
Mix = Literal["real", "sampled", "mixed"]
"""Of anchors."""


@dataclass(frozen=True)
class Recipe:
    """`first_block`: the lowest with an adapter. `anchor_tokens` feed the KL term of one step,
    `anchors` says of which kind they are. `packed`: sequences go through the model packed, by a
    sampler (`passes`, `sampler`), else padded, in woven passes over texts too. A fact is
    shown `least` to `most` times. `sentences`: what is taught is answered by a short sentence, as a
    pretrained model answers everything; taught bare answers, it lost what it knew of the world and
    kept only the form (docs/lab-log.md). `parts`: a batch is computed in so many, where memory is
    short; the step is the same."""

    rank: int
    learning_rate: float
    batch_size: int
    kl_weight: float
    anchor_tokens: int
    autocast: bool
    seed: int
    first_block: int = 0
    packed: bool = False
    anchors: Mix = "sampled"
    least: int = 48
    most: int = 400
    sentences: bool = False
    parts: int = 1


def recipe_of(base: LoadedBase, settings: TrainingSettings, *, autocast: bool) -> Recipe:
    """The recipe for a loaded base."""
    from autodidact.models.loading import blocks_of

    return recipe_for(base.parameters, blocks_of(base.model), settings, autocast)


def recipe_for(parameters: int, blocks: int, settings: TrainingSettings, autocast: bool) -> Recipe:
    """The recipe for a model of so many parameters and blocks; the settings go first."""
    million = parameters / 1e6
    pretrained = parameters >= PRETRAINED_FROM
    if million <= 30:
        rate, batch, tokens = 2e-3, 32, 512
    elif not pretrained:
        rate, batch, tokens = 5e-4, 8, 192
    elif million <= 200:
        rate, batch, tokens = 2e-3, 8, 48
    elif million <= 450:
        rate, batch, tokens = 1e-3, 8, 48
    else:
        rate, batch, tokens = 5e-4, 8, 48
    usual = (32, 3.0, 12, 40) if pretrained else (64, 24.0, 48, 400)
    rank, pull, least, most = usual
    return Recipe(
        rank=settings.rank or rank,
        learning_rate=settings.learning_rate or rate,
        batch_size=settings.batch_size or batch,
        kl_weight=pull if settings.kl_weight is None else settings.kl_weight,
        anchor_tokens=tokens,
        autocast=autocast,
        seed=settings.seed,
        first_block=blocks // 2 if pretrained else 0,
        packed=pretrained,
        sentences=pretrained,
        anchors="real" if pretrained else "sampled",
        least=settings.min_exposures or least,
        most=settings.max_exposures or most,
    )
