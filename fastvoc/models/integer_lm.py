"""EnCodec's language model in whole numbers: int8 weights, int32 sums, tables for softmax and GELU.

Every machine computes the same probabilities, so that a stream coded with them decodes anywhere. The weights are those
of `fastvoc.models.encodec_lm`, rounded row by row; values between layers are integers of 2^-16 and are shifted down to
14 bits where they meet weights. The compiled coder runs the steps if it is there; `IntegerSteps` is their meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fastvoc.ecdc import Steps, coder
from fastvoc.ecdc.coder_python import Cdf, Codes
from fastvoc.errors import ArgumentError
from fastvoc.models import fixed_point as fixed
from fastvoc.models.encodec_lm import EncodecLmConfig, check_codebooks
from fastvoc.models.fixed_point import Ints

_SCHEME = 1  # to be counted up when the arithmetic changes: fingerprints change with it
_TOTAL = 1 << 24
_UNIT = 1 << 16
_DROPPED = 10  # bits of an attention weight
_Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Matrix:
    """Row j stands for weights[j] * multiplier[j] * 2^-exponent; `bias` is of 2^-16, or empty.

    weights: int8 [rows, columns]; multiplier: int32 [rows]; bias: int32 [rows] or [0].
    """

    weights: npt.NDArray[np.int8]
    multiplier: _Int32
    bias: _Int32
    exponent: int

    def parts(self) -> tuple[Any, ...]:
        """As the compiled coder takes it."""
        return self.weights, self.multiplier, self.bias, self.exponent


@dataclass(frozen=True, eq=False)
class Norm:
    """Weight and bias of a layer norm, int32 [dim] of 2^-16."""

    weight: _Int32
    bias: _Int32

    def parts(self) -> tuple[Any, ...]:
        """As the compiled coder takes it."""
        return self.weight, self.bias


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One layer of the transformer."""

    in_proj: Matrix
    out_proj: Matrix
    linear1: Matrix
    linear2: Matrix
    norm1: Norm
    norm2: Norm

    def parts(self) -> tuple[Any, ...]:
        """As the compiled coder takes it."""
        return tuple(getattr(self, name).parts() for name in self.__dataclass_fields__)


class IntegerLm:
    """The model as fastvoc's .ecdc format uses it (`fastvoc.ecdc.LanguageModel`): for files of version 0x81.

    fingerprint: names the weights and the arithmetic; a file can be decoded with the model that has the same.
    """

    def __init__(self, config: EncodecLmConfig, state: Mapping[str, Tensor], *, compiled: bool | None = None) -> None:
        """Rounds the float32 weights of an `EncodecLm`. `compiled` forces the compiled steps or those in Python.

        Raises ArgumentError for weights too large for the arithmetic.
        """
        self.config = config
        tensors = {name: tensor.detach().cpu().double().numpy() for name, tensor in state.items()}
        layer = "transformer.layers.{}.{}".format
        self.norm_in = _norm(tensors, "transformer.norm_in")
        self.layers = [
            IntegerLayer(
                _matrix(tensors, layer(i, "self_attn.in_proj_"), layer(i, "self_attn.in_proj_bias")),
                _matrix(tensors, layer(i, "self_attn.out_proj."), layer(i, "self_attn.out_proj.bias")),
                _matrix(tensors, layer(i, "linear1."), layer(i, "linear1.bias")),
                _matrix(tensors, layer(i, "linear2."), layer(i, "linear2.bias")),
                _norm(tensors, layer(i, "norm1")),
                _norm(tensors, layer(i, "norm2")),
            )
            for i in range(config.layers)
        ]
        self.embeddings = [_matrix(tensors, f"emb.{k}.", None) for k in range(config.codebooks)]
        self.outputs = [_matrix(tensors, f"linears.{k}.", f"linears.{k}.bias") for k in range(config.codebooks)]
        self.fingerprint = self._fingerprint()
        self._compiled: Any = None
        if compiled if compiled is not None else coder.problem() is None:
            self._compiled = self._compile()

    def start(self, codebooks: int) -> Steps:
        """Begins a segment. Raises ArgumentError when the model has fewer codebooks."""
        check_codebooks(codebooks, self.config)
        return IntegerSteps(self, codebooks) if self._compiled is None else _CompiledSteps(self._compiled, codebooks)

    def _fingerprint(self) -> str:
        c = self.config
        sha = hashlib.sha256(repr((_SCHEME, c.heads, c.past)).encode())
        matrices = [m for layer in self.layers for m in layer.parts()]
        for parts in [self.norm_in.parts(), *matrices, *(m.parts() for m in (*self.embeddings, *self.outputs))]:
            for part in parts:
                array = np.asarray(part)
                sha.update(repr((array.shape, array.itemsize)).encode())
                sha.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return f"{_SCHEME}-{sha.hexdigest()[:16]}"

    def tables(self) -> tuple[npt.NDArray[Any], ...]:
        """What the steps look up, as the compiled coder takes it: exp2, gelu, cosine, turns of position channels."""
        tables = (fixed.exp2_table(), fixed.gelu_table(), fixed.cosine_table())
        return *(table.astype(np.int32) for table in tables), fixed.turns_per_step(self.config.dim // 2)

    def _compile(self) -> Any:
        return coder.implementation("cpp").IntegerLm(
            heads=self.config.heads,
            past=self.config.past,
            norm_in=self.norm_in.parts(),
            layers=[layer.parts() for layer in self.layers],
            embeddings=[m.parts() for m in self.embeddings],
            outputs=[m.parts() for m in self.outputs],
            tables=self.tables(),
        )


def _matrix(tensors: Mapping[str, npt.NDArray[np.float64]], name: str, bias: str | None) -> Matrix:
    weight = tensors[f"{name}weight"]
    scale = np.abs(weight).max(axis=1) / 127
    rounded = np.rint(weight / np.where(scale > 0, scale, 1)[:, None])
    largest = float(scale.max())
    # The largest multiplier takes 31 bits; the exponent leaves room for the shift of what comes in.
    exponent = min(62, 31 - int(np.frexp(largest)[1])) if largest else 62
    if exponent < 20:
        raise ArgumentError(f"{name}weight: {largest * 127:g} is too large for integer arithmetic")
    multiplier = np.minimum(np.rint(np.ldexp(scale, exponent)), 2**31 - 1)
    added = np.zeros(0, np.int32) if bias is None else _units(tensors, bias)
    return Matrix(rounded.astype(np.int8), multiplier.astype(np.int32), added, exponent)


def _norm(tensors: Mapping[str, npt.NDArray[np.float64]], name: str) -> Norm:
    return Norm(_units(tensors, f"{name}.weight"), _units(tensors, f"{name}.bias"))


def _units(tensors: Mapping[str, npt.NDArray[np.float64]], name: str) -> _Int32:
    values = np.rint(tensors[name] * _UNIT)
    if not np.abs(values).max() <= fixed.LIMIT:
        raise ArgumentError(f"{name}: {np.abs(tensors[name]).max():g} is too large for integer arithmetic")
    return values.astype(np.int32)


def _tokens(codes: Codes | None, codebooks: int) -> _Int32:
    return np.zeros(codebooks, np.int32) if codes is None else codes.astype(np.int32) + 1


class _CompiledSteps:
    """A segment's way through the compiled model."""

    def __init__(self, model: Any, codebooks: int) -> None:
        self._state = model.start()
        self._codebooks = codebooks

    def step(self, codes: Codes | None) -> Cdf:
        cdf: Cdf = self._state.step(_tokens(codes, self._codebooks))
        return cdf


class IntegerSteps:
    """A segment's way through the model, in Python; `fastvoc.ecdc.Steps`."""

    def __init__(self, model: IntegerLm, codebooks: int) -> None:
        self._model, self._codebooks = model, codebooks
        self._time = 0
        # Keys, their shifts, and values of each layer's last inputs.
        self._memories: list[list[tuple[Ints, int, Ints]]] = [[] for _ in model.layers]
        for layer, memory in zip(model.layers, self._memories, strict=True):
            self._remember(layer, memory, np.zeros(model.config.dim, np.int64))

    def step(self, codes: Codes | None) -> Cdf:
        """The next distribution [K, codes], after codes [K]; None at the start."""
        model = self._model
        x = np.zeros(model.config.dim, np.int64)
        for token, table in zip(_tokens(codes, self._codebooks).tolist(), model.embeddings, strict=False):
            row = table.weights[token].astype(np.int64) * int(table.multiplier[token])
            x = fixed.clamp(x + fixed.shift_right(row, table.exponent - 16))
        x = self._layer_norm(x, model.norm_in)
        turns = np.uint64(self._time) * fixed.turns_per_step(len(x) // 2)
        x = fixed.clamp(x + np.concatenate([fixed.cosine(turns), fixed.cosine(turns - np.uint64(1 << 62))]))
        for layer, memory in zip(model.layers, self._memories, strict=True):
            query = self._remember(layer, memory, x)
            x = fixed.clamp(x + _linear(layer.out_proj, self._attend(query, memory)))
            x = self._layer_norm(x, layer.norm1)
            x = fixed.clamp(x + _linear(layer.linear2, fixed.gelu(_linear(layer.linear1, x))))
            x = self._layer_norm(x, layer.norm2)
        self._time += 1
        return np.stack([_cumulated(_linear(output, x)) for output in model.outputs[: self._codebooks]])

    def _layer_norm(self, x: Ints, norm: Norm) -> Ints:
        return fixed.layer_norm(x, norm.weight.astype(np.int64), norm.bias.astype(np.int64))

    def _remember(self, layer: IntegerLayer, memory: list[tuple[Ints, int, Ints]], x: Ints) -> Ints:
        """Adds the key and the value of an input; returns its query."""
        query, key, value = np.split(_linear(layer.in_proj, x), 3)
        memory.append((*fixed.normalise(key, self._head_bits), value))
        if len(memory) > self._model.config.past + 1:
            del memory[0]
        return query

    @property
    def _head_bits(self) -> int:
        return fixed.product_bits(self._model.config.dim // self._model.config.heads)

    def _attend(self, query: Ints, memory: list[tuple[Ints, int, Ints]]) -> Ints:
        heads = self._model.config.heads
        keys, key_shifts, values = (np.stack(part) for part in zip(*memory, strict=True))
        shifted, shift = fixed.normalise(query, self._head_bits)
        size = len(query) // heads
        products = (keys * shifted).reshape(len(keys), heads, size).sum(axis=2) * isqrt((1 << 60) // size)
        scores = fixed.clamp(fixed.shift_right(products, 46 - shift - key_shifts[:, None]))
        weights = fixed.exp_negative(scores.max(axis=0) - scores) >> _DROPPED
        total = weights.sum(axis=0)[:, None]
        sums = np.einsum("th,thi->hi", weights, values.reshape(len(values), heads, size))
        return fixed.clamp((sums + total // 2) // total).reshape(-1)


def _linear(matrix: Matrix, x: Ints) -> Ints:
    shifted, shift = fixed.normalise(x, fixed.activation_bits(len(x)))
    # Sums of int8 times 14 bits stay below 2^31; as float64, which the processor adds fastest, they are exact.
    sums = (matrix.weights.astype(np.float64) @ shifted.astype(np.float64)).astype(np.int64)
    return fixed.clamp(fixed.shift_right(sums * matrix.multiplier, matrix.exponent - shift) + matrix.bias)


def _cumulated(logits: Ints) -> Cdf:
    """Ends of the symbols' 24-bit shares, of 2 at least, for unnormalised logarithms of probabilities."""
    weights = fixed.exp_negative(logits.max() - logits)
    inverse = ((_TOTAL - 2 * len(logits)) << 38) // int(weights.sum())
    return np.cumsum((weights * inverse >> 38) + 2).astype(np.uint32)
