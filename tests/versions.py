"""Versions and adapters for tests: staged as the study process leaves them, or saved by PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodidact import checkpoints

if TYPE_CHECKING:
    from autodidact.engine import Engine, Version
    from autodidact.models.loading import LoadedBase

BASE_SHA = "b" * 64
WEIGHTS_BYTES = bytes(range(256)) * 4
CONFIG_BYTES = b'{"peft_type": "LORA"}'


def stage(home: Path, version: int, weights: bytes = WEIGHTS_BYTES) -> Path:
    """A work folder with an adapter and a report, ready to publish."""
    staged = checkpoints.staging(home, version) / "adapter"
    staged.mkdir(parents=True, exist_ok=True)
    (staged / checkpoints.WEIGHTS).write_bytes(weights)
    (staged / checkpoints.CONFIG).write_bytes(CONFIG_BYTES)
    (staged / checkpoints.REPORT).write_text(json.dumps({"cycle": version}))
    return staged


def manifest_for(parent: int | None) -> dict[str, Any]:
    return {
        "parent": parent,
        "cycle": 1,
        "base": {"name": "tiny", "revision": "", "sha256": BASE_SHA},
        "document_ids": [1],
        "report": {"cycle": 1},
    }


def publish(home: Path, version: int, parent: int | None, weights: bytes = WEIGHTS_BYTES) -> None:
    checkpoints.publish(home, stage(home, version, weights), version, manifest_for(parent))


def save_adapter(base: LoadedBase, folder: Path, seed: int = 1, rank: int = 4) -> Path:
    """Save in `folder`, by PEFT itself, a LoRA adapter that changes what the base says."""
    import torch
    from peft import LoraConfig, get_peft_model

    from autodidact.models.loading import fork, linear_names

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=linear_names(base.model), task_type="CAUSAL_LM"
        )
        wrapped = get_peft_model(fork(base.model), config)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = 0.3 * torch.randn_like(parameter)
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def load_adapter(engine: Engine, number: int, folder: Path) -> Version:
    config, weights = folder / checkpoints.CONFIG, folder / checkpoints.WEIGHTS
    return engine.load(number, config.read_bytes(), weights.read_bytes())


def one_line(error: BaseException) -> str:
    """The message of an error, sure to be what a user can read: one line, not empty."""
    text = str(error)
    assert text.strip()
    assert "\n" not in text
    return text
