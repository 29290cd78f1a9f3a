"""An ONNX graph while it is written: its nodes, its weights, and the tensors between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ExportError
from fastvoc.exporting.package import number, onnx, wide
from fastvoc.exporting.wire import Attribute, Shape, Wire

OPSET, IR_VERSION = 17, 8  # the oldest that has all nodes in use: what reads it is what people have
_HALF_FROM = 256  # values of a tensor from which on a file of 16 bits stores it in those


class Graph:
    """Nodes in the order in which they run.

    names: those of the model's parameters, by identity, which its weights keep in the file. half: whether the file
    stores large weights as float16, for the same computation in float32. seed: of what the runtime draws.
    """

    def __init__(self, names: Mapping[int, str], *, half: bool = False, seed: int = 0) -> None:
        self._onnx, self._names, self._half, self._seed = onnx(), names, half, seed
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []
        self._known: dict[object, Wire] = {}
        self._kept: list[Tensor] = []  # whose identity is a key above
        self._taken: set[str] = set()
        self._scope = "graph"

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names the nodes that are written inside."""
        before, self._scope = self._scope, name
        try:
            yield
        finally:
            self._scope = before

    @property
    def layer(self) -> str:
        """The name of the layer that is being written."""
        return self._scope

    def refuse(self, why: str) -> ExportError:
        """The error that the layer which is being written cannot be."""
        return ExportError(f"{self._scope}: {why}")

    def input(self, name: str, axes: Sequence[int | str], dtype: torch.dtype) -> Wire:
        """An input of the file; an axis of open length has a name."""
        self._taken.add(name)
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, number(dtype), list(axes)))
        return Wire(self, name, dtype, tuple(axis if isinstance(axis, int) else None for axis in axes))

    def add(
        self,
        kind: str,
        *inputs: Wire | None,
        shape: Shape,
        dtype: torch.dtype | None = None,
        **attributes: Attribute,
    ) -> Wire:
        """A node with one output, of the type of its first input where none is given."""
        return self.add_all(kind, *inputs, shapes=[shape], dtype=dtype, **attributes)[0]

    def add_all(
        self,
        kind: str,
        *inputs: Wire | None,
        shapes: Sequence[Shape],
        dtype: torch.dtype | None = None,
        **attributes: Attribute,
    ) -> list[Wire]:
        """A node with several outputs of one type; an attribute that is None is left out."""
        name = self._name(kind)
        outputs = [name if i == 0 else f"{name}.{i}" for i in range(len(shapes))]
        given = ["" if wire is None else wire.name for wire in inputs]
        kept = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(self._onnx.helper.make_node(kind, given, outputs, name=name, **kept))
        if dtype is None:
            assert inputs[0] is not None
            dtype = inputs[0].dtype
        return [Wire(self, output, dtype, tuple(shape)) for output, shape in zip(outputs, shapes, strict=True)]

    def weight(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Wire:
        """A tensor that the file holds, once, as `dtype`; float16 and bfloat16 count as float32."""
        wanted = wide(tensor.dtype if dtype is None else dtype)
        key = id(tensor), wanted
        if key not in self._known:
            self._kept.append(tensor)
            value = tensor.detach().to("cpu", wanted).contiguous()
            name = self._names.get(id(tensor))
            self._known[key] = self._store(value, name) if name else self._shared(value)
        return self._known[key]

    def constant(self, values: float | bool | Sequence[int] | Sequence[float], dtype: torch.dtype) -> Wire:
        """A number, or a vector of them."""
        plain = tuple(values) if isinstance(values, Sequence) else values
        key = plain, isinstance(plain, tuple), dtype
        if key not in self._known:
            self._known[key] = self._store(torch.tensor(plain, dtype=dtype, device="cpu"), "")
        return self._known[key]

    def next_seed(self) -> float:
        """That of the next random values."""
        self._seed += 1
        return float(self._seed)

    def _shared(self, value: Tensor) -> Wire:
        """A tensor without a name of its own, stored once however many layers, such as like transforms, make it."""
        key = hashlib.sha256(value.numpy().tobytes()).digest(), value.dtype, value.shape
        if key not in self._known:
            self._known[key] = self._store(value, "")
        return self._known[key]

    def _store(self, value: Tensor, name: str) -> Wire:
        stored = value
        if self._half and value.dtype is torch.float32 and value.numel() >= _HALF_FROM:
            stored = value.half()
            if not bool(stored.isfinite().all()):
                raise self.refuse(f"{name or 'a weight'}: a value is too large for float16")
        place = self._name("weight") if not name or name in self._taken else name
        self._taken.add(place)
        array = stored.numpy()
        self._weights.append(self._onnx.numpy_helper.from_array(array, place))
        wire = Wire(self, place, stored.dtype, tuple(value.shape))
        return wire if stored is value else wire.to(value.dtype)

    def _name(self, kind: str) -> str:
        stem = f"{self._scope}/{kind}"
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    def file(self, outputs: Mapping[str, tuple[Wire, Sequence[int | str]]], metadata: Mapping[str, str]) -> bytes:
        """The bytes of a file with these outputs and the names of their axes, checked by onnx.

        Raises ExportError where the checker finds a fault.
        """
        helper = self._onnx.helper
        infos = []
        for name, (wire, axes) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [wire.name], [name], name=f"output/{name}"))
            infos.append(helper.make_tensor_value_info(name, number(wire.dtype), list(axes)))
        graph = helper.make_graph(self._nodes, "fastvoc", self._inputs, infos, self._weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="fastvoc")
        made.ir_version = IR_VERSION
        helper.set_model_props(made, dict(metadata))
        try:
            onnx("onnx.checker").check_model(made, full_check=True)
        except (self._onnx.checker.ValidationError, self._onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the graph is not valid ONNX: {error}") from error
        data: bytes = made.SerializeToString()
        return data
