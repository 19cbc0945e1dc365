"""A Llama-shaped base as an ONNX graph whose weights stay in four or eight bits.

The products are ONNX Runtime's MatMulNBits and its attention with a cache is GroupQueryAttention
(both of its `com.microsoft` operators, MIT; docs/ContribOperators.md there): kernels for AVX2,
AVX-512, VNNI and Neon that take the weights as they are and round a block of 32 activations to
eight bits before they multiply. The graph says what `transformers`' module says; only that rounding
is added.

What Q4_1's offsets add to a product is a matrix product of its own, of the sums of 32 activations
each with the offsets. It has the shape of an adapter, so both are one: each linear layer has a pair
of inputs, `down` (inputs, r) and `up` (r, outputs), whose product is added to that of the coded
weights. In a batch of several versions these stand beside each other in them; a third input of each
layer, `take` (tokens, r), then says which of them a token takes. The graph without that third input
is a fifth faster, so there are both.

Inputs and outputs of the graph, for n rows of t tokens together:

- `hidden` (n t, width), `shape` (n, t, −1), `last` (n,) the last position of each row, `total` the
  largest of them plus one, `keep` the tokens that logits are wanted for;
- `key.i`, `value.i` (n, heads, positions, dim) for each block i, and `new_key.i`, `new_value.i`
  which are to be bound to the same memory: a pass writes its tokens into it;
- `down.NAME`, `up.NAME`, `take.NAME`; `logits` (kept, vocabulary).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from autodidact.models.attention import attention_of
from autodidact.models.blocks import BLOCK, Coded, Floats, coded, joined
from autodidact.models.rounding import FAMILIES

OPSET, FORMAT = 21, 10
BEYOND = 512
"""Positions after the context: a request ends there, but what is measured offline is not bounded by
it (`offline`), and a module goes on, too."""
MICROSOFT = "com.microsoft"


class Unfit(Exception):
    """This base cannot be put into a graph, and why; for the log."""


@dataclass(frozen=True)
class Linear:
    """Linear layers that read the same input, as one: their names in the module tree, in the order
    of their outputs."""

    name: str
    layers: tuple[str, ...]
    outputs: tuple[int, ...]
    inputs: int
    sums: Floats
    """What every adapter's `down` begins with, (inputs, r): adds up blocks of 32 inputs."""
    offsets: Floats
    """What every adapter's `up` begins with: (r, outputs)."""


@dataclass(frozen=True)
class Sizes:
    """Of hidden states (`width`) and logits (`vocabulary`); how many `blocks` there are, heads of
    keys, numbers in a head; and the `bits` of most weights."""

    width: int
    vocabulary: int
    blocks: int
    heads: int
    dim: int
    bits: int


@dataclass(frozen=True)
class Graph:
    """`plain` and `mixed`: the serialised graphs, without weights; both take `weights` by name.
    Where the weights lie in a file (`graph_files`), they are the files that know it. `table` is the
    embedding: a row a token, as floats or coded."""

    plain: bytes | Path
    mixed: bytes | Path
    weights: dict[str, NDArray[Any]]
    linears: tuple[Linear, ...]
    table: Coded | Floats
    sizes: Sizes

    def embedding(self, tokens: NDArray[np.int64]) -> Floats:
        """(tokens, width)."""
        found: Floats
        found = self.table.floats(tokens) if isinstance(self.table, Coded) else self.table[tokens]
        return found


def build(model: Any, context: int, *, accuracy: int = 4) -> Graph:
    """`accuracy` 4 rounds activations to eight bits, 1 computes in float32 (slow; for tests).
    Raises Unfit."""
    return _Builder(model, context, accuracy).graph()


def require_fit(config: Any, context: int) -> None:
    """What can be told without the weights. Raises Unfit."""
    kind = str(config.model_type)
    if kind not in FAMILIES:
        raise Unfit(f"{kind} is not among the families that there is a graph for")
    window = attention_of(config, torch.float32).narrowest
    if window is not None and window < context:
        raise Unfit(f"some of its layers see {window} positions only")
    if str(config.hidden_act) != "silu" or getattr(config, "mlp_bias", False):
        raise Unfit(f"{kind} with another feed-forward part than usual")
    if kind == "llama" and getattr(config, "attention_bias", False):
        raise Unfit("llama with biases")
    widths = {config.hidden_size, config.intermediate_size}
    if any(width % BLOCK for width in widths):
        raise Unfit(f"its widths are no multiples of {BLOCK}")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ("default", "linear", "llama3", "yarn"):
        raise Unfit(f"its positions are of the kind {rope.get('rope_type')}")


@dataclass
class _Builder:
    model: Any
    context: int
    accuracy: int
    nodes: list[Any] = field(default_factory=list)
    takes: list[int] = field(default_factory=list)
    """The nodes that only the graph of several versions has."""
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    linears: list[Linear] = field(default_factory=list)
    bits: int = 4
    epsilon: float = 0.0

    def graph(self) -> Graph:
        config = self.model.config
        require_fit(config, self.context)
        decoder = self.model.model
        width, self.epsilon = int(config.hidden_size), float(config.rms_norm_eps)
        heads, groups = int(config.num_attention_heads), int(config.num_key_value_heads)
        dim = int(getattr(config, "head_dim", None) or width // heads)
        given: tuple[tuple[str, int, list[int | str | None]], ...] = (
            ("hidden", TensorProto.FLOAT, ["tokens", width]), ("shape", TensorProto.INT64, [3]),
            ("last", TensorProto.INT32, ["rows"]), ("total", TensorProto.INT32, []),
            ("keep", TensorProto.INT64, ["kept"]),
        )  # fmt: skip
        for name, kind, shape in given:
            self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        with torch.inference_mode():
            positions = torch.arange(self.context + BEYOND)[None]
            cos, sin = decoder.rotary_emb(torch.zeros(1, 1, width), positions)
        half = dim // 2
        self._weight("cos", cos[0, :, :half].float().numpy())
        self._weight("sin", sin[0, :, :half].float().numpy())
        self.constants.append(numpy_helper.from_array(np.array([-1, heads * dim]), "flat"))

        stream, delta = "hidden", None
        for number, layer in enumerate(decoder.layers):
            attention, mlp = layer.self_attn, layer.mlp
            at = f"model.layers.{number}"
            normed, stream = self._norm(stream, delta, layer.input_layernorm, f"{at}.n1")
            qkv = self._linear(
                normed, f"{at}.qkv",
                {f"{at}.self_attn.{n}_proj": getattr(attention, f"{n}_proj") for n in "qkv"},
            )  # fmt: skip
            told = self._attention(qkv, number, heads, groups, dim)
            delta = self._linear(told, f"{at}.o", {f"{at}.self_attn.o_proj": attention.o_proj})
            normed, stream = self._norm(stream, delta, layer.post_attention_layernorm, f"{at}.n2")
            both = self._linear(
                normed, f"{at}.gate_up",
                {f"{at}.mlp.gate_proj": mlp.gate_proj, f"{at}.mlp.up_proj": mlp.up_proj},
            )  # fmt: skip
            gate, up = self._node("Split", [both], outputs=2, axis=-1, num_outputs=2)
            [swish] = self._node("QuickGelu", [gate], domain=MICROSOFT, alpha=1.0)
            [gated] = self._node("Mul", [swish, up])
            delta = self._linear(gated, f"{at}.down", {f"{at}.mlp.down_proj": mlp.down_proj})
        normed, _ = self._norm(stream, delta, decoder.norm, "norm")
        [kept] = self._node("Gather", [normed, "keep"], axis=0)
        head = self._coded("lm_head", self.model.lm_head.weight)
        logits = self._product(kept, "lm_head", head, None)
        if head.offset is not None:
            sums, offsets = _sums(head)
            self._weight("lm_head.sums", sums)
            self._weight("lm_head.offsets", offsets)
            [low] = self._node("MatMul", [kept, "lm_head.sums"])
            self._node("Gemm", [low, "lm_head.offsets", logits])
        self.nodes[-1].output[0] = "logits"
        self.outputs.insert(
            0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["kept", head.rows])
        )
        tied = self.model.lm_head.weight is decoder.embed_tokens.weight
        table = head if tied else coded(_numpy(decoder.embed_tokens.weight))
        return Graph(
            self._serialised(mixed=False),
            self._serialised(mixed=True),
            self.weights,
            tuple(self.linears),
            _numpy(decoder.embed_tokens.weight).copy() if table is None else table,
            Sizes(width, head.rows, len(decoder.layers), groups, dim, self.bits),
        )

    def _serialised(self, *, mixed: bool) -> bytes:
        nodes, inputs = self.nodes, self.inputs
        if not mixed:
            inputs = [one for one in inputs if not one.name.startswith("take.")]
            gone = {self.nodes[i].output[0]: self.nodes[i].input[0] for i in self.takes}
            nodes = []
            for number, node in enumerate(self.nodes):
                if number in self.takes:
                    continue
                made = type(node)()
                made.CopyFrom(node)
                made.input[:] = [gone.get(name, name) for name in node.input]
                nodes.append(made)
        told = [*self.constants] + [
            _elsewhere(name, values) for name, values in self.weights.items()
        ]
        made = helper.make_model(
            helper.make_graph(nodes, "base", inputs, self.outputs, told),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            ir_version=FORMAT,
        )
        found: bytes = made.SerializeToString()
        return found

    def _linear(self, x: str, name: str, layers: dict[str, Any]) -> str:
        """The product with the coded weights, and what `down` and `up` add to it."""
        parts = [self._coded(layer, module.weight) for layer, module in layers.items()]
        whole = joined(parts)
        biases = [module.bias for module in layers.values()]
        bias = None
        if any(b is not None for b in biases):
            bias = np.concatenate(
                [
                    np.zeros(part.rows, np.float32) if b is None else _numpy(b)
                    for part, b in zip(parts, biases, strict=True)
                ]
            )
        y = self._product(x, name, whole, bias)
        sums, offsets = _sums(whole)
        self.linears.append(
            Linear(
                name,
                tuple(layers),
                tuple(part.rows for part in parts),
                whole.columns,
                sums,
                offsets,
            )
        )
        rank = f"rank.{name}"
        self._floats(f"down.{name}", [whole.columns, rank])
        self._floats(f"up.{name}", [rank, whole.rows])
        [low] = self._node("MatMul", [x, f"down.{name}"])
        self._floats(f"take.{name}", ["tokens", rank])
        self.takes.append(len(self.nodes))
        [low] = self._node("Mul", [low, f"take.{name}"])
        [added] = self._node("Gemm", [low, f"up.{name}", y])
        return added

    def _product(self, x: str, name: str, weight: Coded, bias: Floats | None) -> str:
        self.bits = max(self.bits, weight.bits) if name != "lm_head" else self.bits
        inputs = [x, f"{name}.codes", f"{name}.scale"]
        if weight.bits == 4:
            shifted = (weight.codes + 8).astype(np.uint8)
            packed = shifted[..., 0::2] | (shifted[..., 1::2] << 4)
        else:
            packed = (weight.codes.astype(np.int16) + 128).astype(np.uint8)
        self._weight(inputs[1], packed)
        self._weight(inputs[2], weight.scale.reshape(-1))
        if bias is not None:
            self._weight(f"{name}.bias", bias)
            inputs += ["", "", f"{name}.bias"]
        [y] = self._node(
            "MatMulNBits", inputs, domain=MICROSOFT, K=weight.columns, N=weight.rows,
            bits=weight.bits, block_size=BLOCK, accuracy_level=self.accuracy,
        )  # fmt: skip
        return str(y)

    def _attention(self, qkv: str, number: int, heads: int, groups: int, dim: int) -> str:
        [shaped] = self._node("Reshape", [qkv, "shape"])
        shape: list[int | str | None] = ["rows", groups, "positions", dim]
        for side in ("key", "value"):
            self._floats(f"{side}.{number}", shape)
            self.outputs.append(
                helper.make_tensor_value_info(
                    f"new_{side}.{number}", TensorProto.FLOAT, ["rows", groups, "held", dim]
                )
            )
        told = self._node(
            "GroupQueryAttention",
            [shaped, "", "", f"key.{number}", f"value.{number}", "last", "total", "cos", "sin"],
            outputs=3, domain=MICROSOFT, num_heads=heads, kv_num_heads=groups, do_rotary=1,
            rotary_interleaved=0,
        )  # fmt: skip
        self.nodes[-1].output[1] = f"new_key.{number}"
        self.nodes[-1].output[2] = f"new_value.{number}"
        [flat] = self._node("Reshape", [told[0], "flat"])
        return str(flat)

    def _norm(self, stream: str, delta: str | None, module: Any, name: str) -> tuple[str, str]:
        """The root-mean-square norm of stream + delta, and that sum."""
        self._weight(name, _numpy(module.weight))
        if delta is None:
            [normed] = self._node(
                "SimplifiedLayerNormalization", [stream, name], axis=-1, epsilon=self.epsilon,
                stash_type=1,
            )  # fmt: skip
            return str(normed), stream
        found = self._node(
            "SkipSimplifiedLayerNormalization", [stream, delta, name], outputs=4,
            domain=MICROSOFT, epsilon=self.epsilon,
        )  # fmt: skip
        self.nodes[-1].output[1] = self.nodes[-1].output[2] = ""
        return found[0], found[3]

    def _coded(self, name: str, weight: Any) -> Coded:
        found = coded(_numpy(weight))
        if found is None:
            raise Unfit(f"{name} is not in blocks of four or eight bits")
        return found

    def _weight(self, name: str, values: NDArray[Any]) -> None:
        self.weights[name] = np.array(values, order="C")  # a view would keep all of the base

    def _floats(self, name: str, shape: list[int | str | None]) -> None:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def _node(
        self, kind: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        number = len(self.nodes)
        names = [f"{kind}.{number}.{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, inputs, names, f"{kind}.{number}", domain=domain, **attributes)
        )
        return names


@functools.cache
def adding_up(inputs: int, count: int) -> Floats:
    """(inputs, count) which adds up blocks of 32 inputs; `count` is the number of blocks, or 0
    where there is nothing to add up. Nobody may write into it."""
    blocks = np.eye(inputs // BLOCK, count, dtype=np.float32)
    return np.repeat(blocks, BLOCK, axis=0)


def _sums(weight: Coded) -> tuple[Floats, Floats]:
    """What adds up blocks of 32 inputs, and (r, outputs) of the offsets that these are multiplied
    with; r is 0 where there are none."""
    if weight.offset is None:
        return adding_up(weight.columns, 0), np.zeros((0, weight.rows), np.float32)
    blocks = weight.columns // BLOCK
    return adding_up(weight.columns, blocks), np.ascontiguousarray(weight.offset.T)


def _elsewhere(name: str, values: NDArray[Any]) -> Any:
    """An initializer whose values a session is given in memory."""
    told = TensorProto(
        name=name,
        dims=values.shape,
        data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    told.external_data.add(key="location", value=name)
    return told


def _numpy(tensor: Any) -> Floats:
    found: Floats = tensor.detach().float().numpy()
    return found
