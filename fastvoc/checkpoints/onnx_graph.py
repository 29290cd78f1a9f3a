"""An ONNX file as a graph whose values can be followed back: nodes by what they make, constants folded on demand.

Nodes that onnxruntime has fused (FusedConv) are taken apart again, so that a reader meets the plain ones only.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fastvoc.checkpoints.checkpoint import refuse

_MAX_BYTES = 2 << 30  # of a protobuf message
_MAX_FOLDED = 32  # constant nodes one after another
_PASSING = ("Identity", "CastLike", "Dropout")  # change nothing but the type, as does Cast to one of _FLOATS
_FLOATS = (1, 10, 11, 16)  # float32, float16, float64, bfloat16
_MOST_EXPANDED = 1 << 20  # values
QUANTIZED = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "QLinear")
_FUSED_CONV = "com.microsoft::FusedConv"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Node:
    """A node: `op` has its domain in front where that is not ONNX's own; an input that is left out is ""."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op} that makes {self.outputs[0] if self.outputs else ''!r}"

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        value = self.attributes.get(name)
        return tuple(map(int, value)) if isinstance(value, list | tuple) else default

    def integer(self, name: str, default: int) -> int:
        value = self.attributes.get(name)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        value = self.attributes.get(name)
        return float(value) if isinstance(value, int | float) else default

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name)
        return value.decode(errors="replace") if isinstance(value, bytes) else default


class Graph:
    """The graph of an ONNX file, in the order of its nodes, which is checked: no value before it is made.

    `model` is the file's message as the package `onnx` has it, functions of its own written out; `inputs` and `outputs`
    are the graph's, without constants.
    """

    def __init__(self, path: Path, model: Any) -> None:
        self.path, self.model = path, model
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, Array | None] = {}
        self.inputs = [value.name for value in model.graph.input if value.name not in self._tensors]
        self.outputs = [value.name for value in model.graph.output]
        self.nodes = [plain for node in model.graph.node for plain in _plain(_node(node))]
        self._made: dict[str, Node] = {}
        known = {*self.inputs, *self._tensors, ""}
        for node in self.nodes:
            if missing := next((name for name in node.inputs if name not in known), None):
                raise refuse(path, f"no graph: {node} reads {missing!r}, which nothing before it makes")
            for name in filter(None, node.outputs):
                if name in known:
                    raise refuse(path, f"no graph: {name!r} is made twice")
                known.add(name)
                self._made[name] = node

    def metadata(self) -> dict[str, str]:
        """What the file says about itself."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    def source(self, name: str) -> str:
        """The value that this one is, behind nodes that pass it on."""
        while (node := self._made.get(name)) is not None and _passes(node):
            name = node.inputs[0]
        return name

    def maker(self, name: str) -> Node | None:
        """The node that makes a value, behind those that pass it on; None for the graph's inputs and initializers."""
        return self._made.get(self.source(name))

    def ops(self) -> Counter[str]:
        """How many nodes there are of each kind."""
        return Counter(node.op for node in self.nodes)

    def quantized(self) -> str:
        """The nodes of quantised arithmetic in words, "" without any."""
        found = {op: n for op, n in self.ops().items() if op.rpartition("::")[2].startswith(QUANTIZED)}
        return ", ".join(f"{n} {op}" for op, n in sorted(found.items()))

    def constant(self, name: str) -> Array | None:
        """The value of a constant: an initializer, a Constant node, or what nodes make of those; None for any other.

        Arithmetic runs in float64. Raises LoadError for an initializer that is not what it claims to be.
        """
        return self._constant(name, _MAX_FOLDED)

    def _constant(self, name: str, depth: int) -> Array | None:
        if name not in self._arrays:
            self._arrays[name] = self._evaluated(name, depth)
        return self._arrays[name]

    def _evaluated(self, name: str, depth: int) -> Array | None:
        if name in self._tensors:
            return self._array(self._tensors[name])
        node = self._made.get(name)
        if node is None or depth == 0 or len(node.outputs) != 1:
            return None
        if node.op == "Constant":
            return self._of_node(node)
        if _passes(node):
            return self._constant(node.inputs[0], depth - 1)
        if node.op not in _FOLDED or not node.inputs:
            return None
        values = [self._constant(name, depth - 1) for name in node.inputs if name]
        known = [value for value in values if value is not None]
        if len(known) != len(values):
            return None
        wide = [value.astype(np.float64) if value.dtype.kind not in "iu" else value for value in known]
        try:
            folded = np.asarray(_FOLDED[node.op](node, wide))
        except (ValueError, IndexError, TypeError) as error:
            raise refuse(self.path, f"cannot fold {node} ({error})") from None
        return folded

    def _of_node(self, node: Node) -> Array | None:
        for name, value in node.attributes.items():
            if name == "value":
                return self._array(value)
            if name in ("value_float", "value_floats"):
                return np.asarray(value, dtype=np.float32)
            if name in ("value_int", "value_ints"):
                return np.asarray(value, dtype=np.int64)
        return None

    def fetch(self, name: str) -> None:
        """Puts the data of an initializer into it where they lie in a file beside. Raises LoadError."""
        self._fetch(self._tensors[name])

    def _fetch(self, tensor: Any) -> None:
        from onnx import external_data_helper

        if not external_data_helper.uses_external_data(tensor):
            return
        self._check_place(tensor)
        try:
            external_data_helper.load_external_data_for_tensor(tensor, os.fspath(self.path.parent))
        except (OSError, ValueError, RuntimeError) as error:
            raise refuse(self.path, f"tensor {tensor.name!r}: its data beside the file: {error}") from None
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]

    def _array(self, tensor: Any) -> Array:
        from onnx import numpy_helper

        self._fetch(tensor)
        try:
            array = np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError, OverflowError, NotImplementedError, RuntimeError) as error:
            raise refuse(self.path, f"tensor {tensor.name!r} is not what it claims to be ({error})") from None
        return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array

    def _check_place(self, tensor: Any) -> None:
        place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        parts = PurePosixPath(place)
        inside = bool(place) and not parts.is_absolute() and ".." not in parts.parts
        if not inside or not (self.path.parent / parts).is_file() or (self.path.parent / parts).is_symlink():
            raise refuse(
                self.path, f"tensor {tensor.name!r}: its data are in {place!r}, expected a file beside this one"
            )


def read_graph(path: Path) -> Graph:
    """The graph of an ONNX file, whose constants are read when they are asked for. Nothing of it is run.

    Raises LoadError when it is no ONNX file, or the package `onnx` is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise refuse(path, f"reading ONNX needs the package onnx ({error}): pip install onnx") from None
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise refuse(path, f"{size} bytes, more than an ONNX file can have")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if len(model.functions):
            from onnx import inliner

            model = inliner.inline_local_functions(model)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise refuse(path, f"not a readable ONNX file: {' '.join(str(error).split())[:160]}") from None
    if not len(model.graph.node):
        raise refuse(path, "not a readable ONNX file: there is no graph in it")
    return Graph(path, model)


def _passes(node: Node) -> bool:
    return bool(node.inputs) and (node.op in _PASSING or (node.op == "Cast" and node.integer("to", 0) in _FLOATS))


def _node(proto: Any) -> Node:
    from onnx import helper

    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}::"
    # Graphs inside (If, Loop) are no concern of a reader that follows values back.
    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute if a.type not in (a.GRAPH, a.GRAPHS)}
    return Node(domain + proto.op_type, tuple(proto.input), tuple(proto.output), attributes)


def _plain(node: Node) -> Iterator[Node]:
    """A node, or the plain ones that onnxruntime has fused into it."""
    activation = node.text("activation", "")
    if node.op != _FUSED_CONV or len(node.outputs) != 1 or activation not in ("", "Relu", "LeakyRelu", "Tanh"):
        yield node
        return
    (made,) = node.outputs
    convolved, x = f"{made}#convolved", node.inputs[:3]
    yield Node("Conv", x, (convolved,), node.attributes)
    if len(node.inputs) > 3 and node.inputs[3]:
        added = f"{made}#added"
        yield Node("Add", (convolved, node.inputs[3]), (added,))
        convolved = added
    values = node.attributes.get("activation_params")
    alpha = {"alpha": values[0]} if activation == "LeakyRelu" and isinstance(values, list | tuple) and values else {}
    yield Node(activation or "Identity", (convolved,), (made,), alpha)


def _axes(node: Node, values: list[Array]) -> tuple[int, ...] | None:
    given = values[1].reshape(-1).tolist() if len(values) > 1 else node.attributes.get("axes")
    return tuple(map(int, given)) if isinstance(given, list | tuple) and len(given) else None


def _reduced(power: int, root: bool) -> Callable[[Node, list[Array]], Array]:
    def reduce(node: Node, values: list[Array]) -> Array:
        total = np.sum(values[0] ** power, axis=_axes(node, values), keepdims=bool(node.integer("keepdims", 1)))
        return np.sqrt(total) if root else np.asarray(total)

    return reduce


def _paired(of: Callable[[Array, Array], Array]) -> Callable[[Node, list[Array]], Array]:
    def pair(_: Node, values: list[Array]) -> Array:
        a, b = values
        if np.broadcast_shapes(a.shape, b.shape) not in (a.shape, b.shape):  # a small file must not make a huge array
            raise ValueError(f"shapes {a.shape} and {b.shape}")
        return of(a, b)

    return pair


def _reshaped(_: Node, values: list[Array]) -> Array:
    shape = [values[0].shape[i] if n == 0 else n for i, n in enumerate(values[1].reshape(-1).tolist())]
    return values[0].reshape(shape)


def _expanded(_: Node, values: list[Array]) -> Array:
    shape = np.broadcast_shapes(values[0].shape, tuple(values[1].reshape(-1).tolist()))
    if math.prod(shape) > _MOST_EXPANDED:
        raise ValueError(f"to shape {shape}")
    return np.broadcast_to(values[0], shape)


def _shape(node: Node, values: list[Array]) -> Array:
    whole = values[0].shape
    return np.asarray(whole[node.integer("start", 0) : node.integer("end", len(whole))], dtype=np.int64)


def _unsqueezed(node: Node, values: list[Array]) -> Array:
    return np.expand_dims(values[0], _axes(node, values) or ())


def _transposed(node: Node, values: list[Array]) -> Array:
    return np.transpose(values[0], node.integers("perm", tuple(reversed(range(values[0].ndim)))))


_FOLDED: dict[str, Callable[[Node, list[Array]], Array]] = {
    "Add": _paired(np.add),
    "Sub": _paired(np.subtract),
    "Mul": _paired(np.multiply),
    "Div": _paired(np.divide),
    "Pow": _paired(np.power),
    "Sqrt": lambda _, values: np.sqrt(values[0]),
    "Abs": lambda _, values: np.abs(values[0]),
    "ReduceL2": _reduced(2, root=True),
    "ReduceSum": _reduced(1, root=False),
    "ReduceSumSquare": _reduced(2, root=False),
    "Squeeze": lambda node, values: np.squeeze(values[0], _axes(node, values)),
    "Unsqueeze": _unsqueezed,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Expand": _expanded,
    "Shape": _shape,
}
