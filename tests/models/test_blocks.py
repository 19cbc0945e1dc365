"""Small numbers found again in the floats that they stand for."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.models.blocks import BLOCK, coded, joined

FORMS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}


def through(form: str, rows: int = 12, columns: int = 96, seed: int = 0) -> np.ndarray:
    """Random weights as a file in this form gives them back."""
    dice = np.random.default_rng(seed)
    weight = (dice.standard_normal((rows, columns)) * 10 ** dice.uniform(-4, 2)).astype(np.float32)
    kind = getattr(gguf.GGMLQuantizationType, form)
    return np.asarray(gguf.dequantize(gguf.quantize(weight, kind), kind), np.float32)


@pytest.mark.parametrize("form", FORMS)
@given(rows=st.integers(1, 20), blocks=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_what_a_file_holds_is_found_again_to_the_bit(
    form: str, rows: int, blocks: int, seed: int
) -> None:
    weight = through(form, rows, blocks * BLOCK, seed)
    found = coded(weight)
    assert found is not None
    assert (found.rows, found.columns) == weight.shape
    assert found.bits <= FORMS[form]
    low, high = (-8, 7) if found.bits == 4 else (-127, 127)
    assert low <= found.codes.min() <= found.codes.max() <= high
    floats = found.floats()
    if found.offset is None:
        assert np.array_equal(floats, weight)
    else:  # scale × (code + 8) + low is told as scale × code + (low + 8 × scale)
        assert np.allclose(floats, weight, rtol=0, atol=1e-6 * np.abs(weight).max())
    some = np.arange(rows)[::2]
    assert np.array_equal(found.floats(some), floats[some])


@given(seed=st.integers(0, 10**6), form=st.sampled_from(sorted(FORMS)))
def test_one_number_that_is_another_is_seen(seed: int, form: str) -> None:
    weight = through(form, 20, 96, seed)
    dice = np.random.default_rng(seed)
    row, column = dice.integers(20), dice.integers(96)
    weight[row, column] = np.nextafter(weight[row, column], np.float32(np.inf))
    found = coded(weight)
    assert found is None or np.array_equal(found.floats(), weight)


@pytest.mark.parametrize(
    "weight",
    [
        np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32),
        np.full((4, 64), np.nan, np.float32),
        np.full((4, 64), np.inf, np.float32),
        np.tile(np.array([3e38, -3e38], np.float32), (4, 32)),
        np.ones((4, 40), np.float32),
        np.ones(64, np.float32),
    ],
    ids=["floats", "NaN", "infinite", "beyond a scale", "a row that is no blocks", "a vector"],
)
def test_what_is_in_no_form_is_not_taken_for_one(weight: np.ndarray) -> None:
    assert coded(weight) is None


@pytest.mark.parametrize("value", [0.0, -1.5, 0.25])
def test_one_number_everywhere(value: float) -> None:
    weight = np.full((3, 64), value, np.float32)
    found = coded(weight)
    assert found is not None
    assert np.array_equal(found.floats(), weight)


@pytest.mark.parametrize("form", FORMS)
def test_a_long_weight_is_looked_at_in_slabs(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = through(form, 40, 64)
    whole = coded(weight)
    monkeypatch.setattr("autodidact.models.blocks.SLAB", 16)
    found = coded(weight)
    assert whole is not None
    assert found is not None
    assert np.array_equal(found.codes, whole.codes)
    assert np.array_equal(found.floats(), whole.floats())
    weight[39] += 1e-3
    assert coded(weight) is None


def test_weights_of_several_forms_stand_together() -> None:
    parts = [through(form, rows=5 + i, seed=i) for i, form in enumerate(FORMS)]
    found = [coded(part) for part in parts]
    whole = joined([one for one in found if one is not None])
    assert whole.bits == 8
    assert whole.offset is not None
    assert np.allclose(whole.floats(), np.concatenate(parts), atol=1e-5)
