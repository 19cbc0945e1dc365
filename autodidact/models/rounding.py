"""A base in floats, rounded once to numbers of eight bits, for a CPU that replies faster by those.

What computes replies several times as fast on a CPU (`engine.graph`) takes weights that are numbers
of few bits, and what serves has to be what was trained and measured. So a base that came in floats
is rounded before anything else is done with it, and learner and server both read the copy in the
home's `base-model/`: each row's blocks of 32 weights as a scale and whole numbers from −127 to 127
(Q8_0 of llama.cpp, by the package `gguf`), kept as the floats that these stand for.

Only where it pays: see `worth`. Reads no weights and never imports torch; a child process rounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from autodidact.models.files import (
    SMALL_FILES,
    Log,
    combine,
    convert,
    hash_files,
    identity_files,
    matches,
    weights,
)

Rounding = Literal["auto", "none", "8bit"]
FAMILIES = frozenset({"llama", "mistral", "qwen2"})
"""`model_type`s that there is a graph for (`engine.graph`)."""
LEAST, MOST = 30_000_000, 600_000_000
"""Parameters: below, a model is fast enough; above, the copy takes more than 2.4 GB on disk."""

_ROUND = """
import sys
import gguf, torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()
source, target = sys.argv[1:]
form = gguf.GGMLQuantizationType.Q8_0
model = AutoModelForCausalLM.from_pretrained(
    source, dtype=torch.float32, local_files_only=True, use_safetensors=True
)
for weight in model.parameters():
    if weight.ndim == 2 and weight.shape[1] % 32 == 0:
        for rows in weight.data.split(4096):
            rows.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(rows.numpy(), form), form)))
model.save_pretrained(target)
"""


def worth(folder: Path) -> bool:
    """Whether "auto" rounds this base on a CPU: its family is one that is computed faster then, it
    is large enough to be slow, and small enough for a second copy."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        kind = config.get("model_type")
        names = weights({entry.name for entry in folder.iterdir()}, folder)
        size = sum((folder / name).stat().st_size for name in names)
        number = config.get("dtype") or config.get("torch_dtype") or "float32"
    except (OSError, ValueError, AttributeError):
        return False
    return kind in FAMILIES and LEAST <= size / (4 if number == "float32" else 2) <= MOST


def ending(folder: Path, commit: str) -> str:
    """What the name of a base's copy ends with: a snapshot is known by its commit, a folder by what
    is in it."""
    key = commit or combine(hash_files(folder, identity_files(folder), {}))
    return f"-{key[:12]}-8bit"


def rounded(name: str, folder: Path, commit: str, home: Path, log: Log) -> Path:
    """The copy. Raises ModelError or ResourceError."""
    slug = name.replace("/", "--") if commit else folder.name
    target = home / "base-model" / (slug + ending(folder, commit))
    if not target.is_dir():
        log(f"rounding the weights of {name} to eight bits, once: a CPU replies faster by them")
    beside = [entry for entry in folder.iterdir() if entry.is_file()]
    small = [entry for entry in beside if matches(entry.name, SMALL_FILES)]
    return convert(name, target, _ROUND, str(folder), small)
