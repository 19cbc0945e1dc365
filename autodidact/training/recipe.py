"""What the size of a model decides about its training."""

from __future__ import annotations

from dataclasses import dataclass

from autodidact.settings import TrainingSettings


@dataclass(frozen=True)
class Recipe:
    """What the size of the model decides. `anchor_tokens` feed the KL term of one step."""

    rank: int
    learning_rate: float
    batch_size: int
    kl_weight: float
    anchor_tokens: int
    autocast: bool
    seed: int


def recipe_for(parameters: int, settings: TrainingSettings, autocast: bool) -> Recipe:
    """Learning rate and batch by model size, unless the settings say otherwise."""
    million = parameters / 1e6
    if million <= 30:
        rate, batch, anchors = 2e-3, 32, 512
    elif million <= 200:
        rate, batch, anchors = 5e-4, 8, 192
    elif million <= 450:
        rate, batch, anchors = 3e-4, 8, 192
    else:
        rate, batch, anchors = 2e-4, 8, 192
    return Recipe(
        settings.rank,
        settings.learning_rate or rate,
        settings.batch_size or batch,
        settings.kl_weight,
        anchors,
        autocast,
        settings.seed,
    )
