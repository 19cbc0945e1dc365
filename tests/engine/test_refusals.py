"""`Engine.load`: an adapter that is not plain LoRA on our base is refused, in one line.

PEFT itself loads wrong key names without an exception, and takes whatever its config allows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from autodidact.checkpoints import CONFIG, WEIGHTS
from autodidact.engine import Engine
from autodidact.errors import CheckpointError
from autodidact.models.loading import LoadedBase
from tests.tiny_models import FAMILIES
from tests.versions import load_adapter, one_line, save_adapter
from tests.workplace import child_environment

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def engine(llama: LoadedBase) -> Engine:
    return Engine(llama)


@pytest.fixture(scope="module")
def saved(llama: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(llama, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def config(saved: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((saved / CONFIG).read_text())
    return found


@pytest.fixture(scope="module")
def weights(saved: Path) -> bytes:
    return (saved / WEIGHTS).read_bytes()


def refused(engine: Engine, config: bytes, weights: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        engine.load(7, config, weights)
    line = one_line(caught.value)
    assert "000007" in line
    return line


def test_an_adapter_that_peft_saved_is_taken(engine: Engine, saved: Path) -> None:
    assert load_adapter(engine, 7, saved).number == 7


# Weights ----------------------------------------------------------------------------------------


def first(tensors: Tensors, part: str = "lora_A") -> str:
    return next(name for name in sorted(tensors) if part in name)


def without_first(tensors: Tensors) -> Tensors:
    return {name: t for name, t in tensors.items() if name != first(tensors)}


def with_first(tensors: Tensors, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    return {**tensors, first(tensors): change(tensors[first(tensors)]).contiguous()}


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[-1, -1] = value
        return changed

    return change


WRONG_TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    "none": lambda tensors: {},
    "one missing": without_first,
    "one more": lambda tensors: {**tensors, "base_model.model.lm_head.weight": torch.zeros(2)},
    "renamed": lambda tensors: {name.replace("lora_A", "lora_a"): t for name, t in tensors.items()},
    "no prefix": lambda tensors: {
        name.removeprefix("base_model.model."): t for name, t in tensors.items()
    },
    "an adapter's name in the keys": lambda tensors: {
        name.replace(".weight", ".default.weight"): t for name, t in tensors.items()
    },
    "another layer": lambda tensors: {
        name.replace("layers.1", "layers.2"): t for name, t in tensors.items()
    },
    "transposed": lambda tensors: with_first(tensors, torch.Tensor.t),
    "another rank": lambda tensors: with_first(tensors, lambda t: t[:2]),
    "a dimension more": lambda tensors: with_first(tensors, lambda t: t[None]),
    "NaN": lambda tensors: with_first(tensors, filled(float("nan"))),
    "infinity": lambda tensors: with_first(tensors, filled(float("inf"))),
    "minus infinity": lambda tensors: with_first(tensors, filled(float("-inf"))),
    "integers": lambda tensors: with_first(tensors, lambda t: t.to(torch.int32)),
    "booleans": lambda tensors: with_first(tensors, lambda t: t > 0),
    "8-bit floats": lambda tensors: with_first(tensors, lambda t: t.to(torch.float8_e4m3fn)),
    "too large to be added up": lambda tensors: {
        name: torch.full_like(t, 1e30) for name, t in tensors.items()
    },
}


@pytest.mark.parametrize("change", WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_wrong_tensors_are_refused(
    engine: Engine, config: dict[str, Any], weights: bytes, change: Callable[[Tensors], Tensors]
) -> None:
    refused(engine, json.dumps(config).encode(), save(change(load(weights))))


def pickled() -> bytes:
    import io

    stream = io.BytesIO()
    torch.save({"weights": torch.zeros(2)}, stream)
    return stream.getvalue()


WRONG_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "only the header's length": lambda data: data[:8],
    "longer": lambda data: data + b"\0",
    "a pickle (.bin)": lambda data: pickled(),
    "text": lambda data: b"not weights" * 50,
    "a header too long": lambda data: b"\xff" * 8 + data[8:],
}


@pytest.mark.parametrize("change", WRONG_BYTES.values(), ids=WRONG_BYTES.keys())
def test_what_is_not_safetensors_is_refused(
    engine: Engine, config: dict[str, Any], weights: bytes, change: Callable[[bytes], bytes]
) -> None:
    line = refused(engine, json.dumps(config).encode(), change(weights))
    assert "adapter_model.safetensors" in line


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_is_refused_or_harmless(
    engine: Engine, config: dict[str, Any], weights: bytes, at: float, bit: int
) -> None:
    """Nothing but a CheckpointError ever comes out."""
    header = 8 + int.from_bytes(weights[:8], "little")
    position = int(at * header)
    changed = bytearray(weights)
    changed[position] ^= 1 << bit
    try:
        engine.load(7, json.dumps(config).encode(), bytes(changed))
    except CheckpointError as error:
        one_line(error)


# Configuration ----------------------------------------------------------------------------------

WRONG_CONFIG: dict[str, dict[str, Any]] = {
    "rank 0": {"r": 0},
    "rank -4": {"r": -4},
    "rank 513": {"r": 513},
    "another rank than the tensors'": {"r": 8},
    "rank infinite": {"r": float("inf")},
    "rank is text": {"r": "four"},
    "rank is null": {"r": None},
    "alpha infinite": {"lora_alpha": float("inf")},
    "alpha 0": {"lora_alpha": 0},
    "alpha huge": {"lora_alpha": 10**400},
    "alpha with a fraction": {"lora_alpha": 4.5},
    "one module less": {"target_modules": ["q_proj", "k_proj"]},
    "the head too": {
        "target_modules": [
            "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj", "lm_head",
        ]
    },
    "modules by pattern": {"target_modules": ".*_proj"},
    "no modules": {"target_modules": None},
    "mixed modules": {"target_modules": ["q_proj", 1]},
    "DoRA": {"use_dora": True},
    "rank-stabilised": {"use_rslora": True},
    "biases": {"bias": "all"},
    "modules to save": {"modules_to_save": ["lm_head"]},
    "rank by layer": {"rank_pattern": {"q_proj": 2}},
    "alpha by layer": {"alpha_pattern": {"q_proj": 64}},
    "some layers": {"layers_to_transform": [0]},
    "layers repeated": {"layer_replication": [[0, 2]]},
    "a bias in B": {"lora_bias": True},
    "fan in, fan out": {"fan_in_fan_out": True},
    "single tokens": {"trainable_token_indices": [5]},
    "parameters": {"target_parameters": ["lm_head.weight"]},
    "code of its own": {"auto_mapping": {"base_model_class": "x", "parent_library": "os"}},
    "a field nobody knows": {"use_something_new": True},
    "another method": {"peft_type": "IA3"},
    "no method": {"peft_type": None},
    "another task": {"task_type": "SEQ_CLS"},
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG_CONFIG.values(), ids=WRONG_CONFIG.keys())
def test_a_foreign_configuration_is_refused(
    engine: Engine, config: dict[str, Any], weights: bytes, change: dict[str, Any]
) -> None:
    refused(engine, json.dumps({**config, **change}).encode(), weights)


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b"7", b'"LORA"', b"{}", b"{", b"\xff\xfe", b"[" * 200_000]
)
def test_a_configuration_that_is_no_object_is_refused(
    engine: Engine, weights: bytes, text: bytes
) -> None:
    assert "adapter_config.json" in refused(engine, text, weights)


@pytest.mark.parametrize("missing", ["r", "lora_alpha", "target_modules", "peft_type"])
def test_a_configuration_without_what_matters_is_refused(
    engine: Engine, config: dict[str, Any], weights: bytes, missing: str
) -> None:
    less = {key: value for key, value in config.items() if key != missing}
    refused(engine, json.dumps(less).encode(), weights)


def test_what_does_not_matter_may_be_anything(
    engine: Engine, config: dict[str, Any], weights: bytes
) -> None:
    changed = {**config, "base_model_name_or_path": "moved/elsewhere", "peft_version": "0.9.0"}
    changed["target_modules"] = sorted(config["target_modules"])
    del changed["lora_bias"]
    assert engine.load(7, json.dumps(changed).encode(), weights).number == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_another_family_is_refused(
    engine: Engine, tiny_base: Callable[[str], LoadedBase], tmp_path: Path, family: str
) -> None:
    """Also one whose layers are called the same: Llama, SmolLM2 and Qwen differ in nothing else."""
    folder = save_adapter(tiny_base(family), tmp_path / family)
    same = {"llama", "smollm2", "qwen2"}
    if family in same:
        assert load_adapter(engine, 7, folder).number == 7, "only the manifest can tell these"
    else:
        refused(engine, (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes())


def test_a_refused_adapter_leaves_the_base_as_it_was(
    engine: Engine, config: dict[str, Any], weights: bytes
) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    before = engine.forward([engine.untouched], input_ids=ids).logits
    changed = save(WRONG_TENSORS["infinity"](load(weights)))
    refused(engine, json.dumps(config).encode(), changed)
    changed = save(WRONG_TENSORS["too large to be added up"](load(weights)))
    refused(engine, json.dumps(config).encode(), changed)
    assert torch.equal(engine.forward([engine.untouched], input_ids=ids).logits, before)
    with torch.inference_mode():
        assert torch.equal(engine.base.model(ids).logits, before)
    assert not any("lora" in name for name, _ in engine.base.model.named_modules())


# No pickle --------------------------------------------------------------------------------------

AUDIT = """
import sys
from pathlib import Path
import torch, transformers, peft
from autodidact.engine import Engine
from autodidact.engine.batcher import Batcher
from autodidact.models import loading
from autodidact.training import sft
from autodidact.training.objectives import AnswerLoss
from autodidact.training.pace import Clock
from autodidact.training.recipe import Recipe
from autodidact.training.sequences import TrainingSequence
from autodidact.types.chat import SamplingParams
seen = []
sys.addaudithook(lambda event, args: event.startswith("pickle.") and seen.append((event, args)))
base = loading.load(Path(sys.argv[1]), 1)
engine = Engine(base)
folder = Path(sys.argv[2])
version = engine.load(1, (folder / "adapter_config.json").read_bytes(),
                      (folder / "adapter_model.safetensors").read_bytes())
batcher = Batcher(engine)
batcher.start()
list(batcher.submit(version, [5, 6, 7], SamplingParams(max_new_tokens=3)))
batcher.close()
trainer = sft.Trainer(base, AnswerLoss(), Recipe(4, 1e-3, 1, 0.0, 0, False, 0), [])
trainer.step([TrainingSequence((5, 6, 7), (-100, 6, 7), "text", 1)], 0.5)
trainer.save(Path(sys.argv[3]), Clock(step=1))
trainer.restore(Path(sys.argv[3]))
assert not seen, seen
import pickle, collections
pickle.loads(pickle.dumps(collections.OrderedDict()))
assert seen, "the hook hears"
"""


@pytest.mark.slow
def test_no_pickle_is_loaded_on_the_way_from_disk_to_a_reply(
    tiny_folder: Callable[[str], Path], saved: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tiny_folder("llama")), str(saved), str(tmp_path / "s")],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
