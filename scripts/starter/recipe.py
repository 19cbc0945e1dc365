"""What a starter is and how it is trained, in one place.

`CPU` fits two cores and two hours; `GPU` is the same with more of everything,
for an accelerator.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from scripts.starter.forms import Kind


@dataclass(frozen=True)
class Stage:
    """A part of the training: rows of `length` tokens, `rows` of them a step, in a mix by tokens.

    `prompt_weight` is the weight of a token of a question or passage in the loss; text and replies
    have weight 1. `questions` are the lengths of the conversations about passages.
    """

    name: str
    share: float
    length: int
    rows: int
    prompt_weight: float
    mix: dict[Kind, float]
    questions: tuple[int, ...] = (4, 5, 6, 8)


@dataclass(frozen=True)
class Recipe:
    """Shape, data and optimisation. `tokens` counts positions of packed rows, both stages
    together. Rates: Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for the
    embeddings and norms; linear warm-up over `warmup` of the steps, constant, linear to 0 over the
    last `decay` of them."""

    vocabulary: int = 6144
    hidden: int = 320
    layers: int = 6
    feed_forward: int = 864
    heads: int = 5
    kv_heads: int = 1
    head_size: int = 64
    context: int = 1024
    tokens: int = 64_000_000
    article_characters: int = 6000
    muon_rate: float = 0.02
    adam_rate: float = 0.008
    warmup: float = 0.02
    decay: float = 0.5
    seed: int = 0
    stages: tuple[Stage, ...] = (
        Stage(
            "pretraining",
            0.7,
            512,
            32,
            0.5,
            {
                "text": 0.61,
                "recall": 0.10,
                "reading": 0.14,
                "about": 0.02,
                "services": 0.05,
                "small talk": 0.02,
                "trivia": 0.05,
                "instructions": 0.01,
            },
        ),
        Stage(
            "chat and reading",
            0.3,
            1024,
            16,
            0.2,
            {
                "text": 0.31,
                "recall": 0.14,
                "reading": 0.36,
                "about": 0.03,
                "services": 0.03,
                "small talk": 0.04,
                "trivia": 0.07,
                "instructions": 0.02,
            },
        ),
    )

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


CPU = Recipe()
GPU = replace(
    CPU,
    vocabulary=8192,
    hidden=384,
    layers=7,
    feed_forward=1024,
    heads=6,
    kv_heads=2,
    tokens=400_000_000,
    article_characters=12_000,
)
RECIPES = {"cpu": CPU, "gpu": GPU}
