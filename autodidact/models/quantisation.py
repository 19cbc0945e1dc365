"""Linear layers with weights of 8 or 4 bits, in place of a frozen model's own.

Contract: `quantise` replaces every linear layer but the output head of a module tree that no one
else uses, and says in a few words what it did. What it puts there is an `nn.Linear` whose tensors
`loading.fork` shares, so adapters go on top of it as on any other. It leaves to others: loading,
the choice of number format, adapters. It never leaves a layer as it was in silence: each new layer
is tried on this machine against the one that it replaces, and an error names the setting.

The arithmetic is bitsandbytes' (MIT), an optional dependency, on the CPU and on GPUs alike:

- int8: a weight row and an input row are each scaled by their largest magnitude and multiplied as
  8-bit integers (Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339, section 2). Its second
  half, outlier columns in full precision, is left out: the columns are chosen over all rows of a
  batch, so a reply would depend on the requests beside it.
- int4: NF4, blocks of 64 weights share one scale (Dettmers et al. 2023, "QLoRA", arXiv
  2305.14314, section 3); the products are of unpacked weights.

Embeddings and output head stay: small models tie them, so one matrix is both a table that is read
by row and the layer whose rounding reaches the probabilities directly.
"""

from __future__ import annotations

import importlib.util
import logging
from importlib.metadata import version
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from autodidact.errors import SettingError

Format = Literal["int8", "int4"]
LIBRARY = "bitsandbytes"
BLOCK = 64
"""Weights that share a scale in int4 (QLoRA's choice)."""
PACKED_ROWS = 32
"""bitsandbytes' CPU kernel for int4 takes outputs in multiples of this."""
TOLERANCE = {"int8": 0.1, "int4": 0.4}
"""Largest relative error of a layer's output on random input before the kernels count as wrong:
several times what rounding costs (about 0.01 and 0.1)."""


class Int8Linear(nn.Linear):
    """y = x Wᵀ + b with W in 8-bit integers. x: (…, inputs) → (…, outputs), in the dtype of x."""

    scale: torch.Tensor

    def __init__(self, linear: nn.Linear, library: ModuleType) -> None:
        nn.Module.__init__(self)  # nn.Linear's would make float weights first
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._functions = _Functions(library)
        codes, largest = self._functions.rounded(linear.weight.data)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.bias = linear.bias
        self.register_buffer("scale", largest / 127)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, largest = self._functions.rounded(x.reshape(-1, self.in_features))
        y = self._functions.products(codes, self.weight).float()
        y.mul_((largest / 127).unsqueeze(1)).mul_(self.scale)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


class _Functions:
    """The library's functions. A copied module tree shares them: modules cannot be copied."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library.functional

    def rounded(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, columns) → 8-bit integers and the largest magnitude of each row, float32."""
        if rows.device.type != "cpu":
            rows = rows.half()  # the kernels for GPUs take nothing else
        codes, largest, _ = self._library.int8_vectorwise_quant(rows.contiguous())
        return codes, largest

    def products(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a bᵀ of 8-bit integers, in 32-bit ones."""
        product: torch.Tensor = self._library.int8_linear_matmul(a, b)
        return product

    def __deepcopy__(self, memo: dict[int, Any]) -> _Functions:
        return self


def require(form: Format) -> None:
    """Raise SettingError if `form` needs a package that is not installed. Loads nothing."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise SettingError(
            f"server.quantisation: {form} needs {LIBRARY}, which is not installed; "
            f'pip install {LIBRARY}, or set "none"'
        )


@torch.inference_mode(False)
@torch.no_grad()
def quantise(model: PreTrainedModel, form: Format) -> str:
    """Replace the linear layers of `model` but its head, in place. Returns words for the log.

    Needs, at its largest, the memory of the model as it is and of one quantised layer. Raises
    SettingError with one line where the library is missing or does not work on this machine.
    """
    require(form)
    library = _library(form)
    head = model.get_output_embeddings()
    device = str(model.device.type)
    for name, linear in list(model.named_modules()):
        if not isinstance(linear, nn.Linear) or linear is head:
            continue
        try:
            fresh = Int8Linear(linear, library) if form == "int8" else _nf4(linear, library)
            _try(linear, fresh, TOLERANCE[form])
        except Exception as error:  # native code: it raises what it likes
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SettingError(
                f"server.quantisation: {LIBRARY} {version(LIBRARY)} cannot do {form} on this "
                f'{device} ({name}: {line}); set "none"'
            ) from error
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, fresh)
    plain = device == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    slow = ", slow: no AVX-512 here" if plain else ""
    return f"{form} weights by {LIBRARY} {version(LIBRARY)}{slow}"


def _library(form: Format) -> ModuleType:
    # It reports at import, as a warning, that an optional download of faster kernels is absent.
    logging.getLogger(LIBRARY).setLevel(logging.ERROR)
    try:
        return importlib.import_module(LIBRARY)
    except Exception as error:  # a broken native library is no ImportError
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingError(
            f"server.quantisation: {form} needs {LIBRARY}, which cannot be loaded ({line}); "
            'reinstall it, or set "none"'
        ) from error


def _nf4(linear: nn.Linear, library: ModuleType) -> nn.Linear:
    """The library's own layer. Its first call, in `_try`, brings the codes into the order that
    the CPU's kernel reads; shapes that this kernel does not take are unpacked at each call."""
    with torch.device("meta"):
        fresh: Any = library.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=linear.weight.dtype,
            quant_type="nf4",
        )
    weight = library.nn.Params4bit(
        linear.weight.data,
        requires_grad=False,
        blocksize=BLOCK,
        compress_statistics=False,
        quant_type="nf4",
    )
    fresh.weight = weight.to(linear.weight.device)
    fresh.bias = linear.bias
    if linear.in_features % BLOCK or linear.out_features % PACKED_ROWS:
        fresh.support_avx512bf16_for_cpu = False
    layer: nn.Linear = fresh.eval()
    return layer


def _try(old: nn.Linear, new: nn.Linear, tolerance: float) -> None:
    """Raise ValueError unless `new` computes, within rounding, what `old` does."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, old.in_features, generator=generator).to(old.weight)
    expected, found = old(x).float(), new(x).float()
    error = float((found - expected).norm() / expected.norm().clamp(min=1e-6))
    if not error < tolerance:  # also where it is not a number
        raise ValueError(f"its results are off by {error:.0%}")
