"""Calls of the native ops: recorded here, run elsewhere from a file, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# torch's numbers of its types
TYPES = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.bfloat16: 15,
}
WITHOUT_TENSORS = ("cpu_isa", "limit_isa")


@dataclass(frozen=True)
class Call:
    """One call: the op's name, its arguments, their declared types, and all tensors that it returned or changed."""

    name: str
    args: list[Any]
    declared: list[str]
    changed: list[int]
    results: list[Tensor]


class Recorder(TorchDispatchMode):
    """Keeps the calls of native ops that are made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("_fastvoc::")
        if func.namespace != "_fastvoc" or name in WITHOUT_TENSORS:
            return func(*args, **(kwargs or {}))
        assert not kwargs
        args = (*args, *(a.default_value for a in func._schema.arguments[len(args) :]))
        given = [_copy(a) for a in args]
        results = func(*args)
        written = [i for i, a in enumerate(func._schema.arguments) if a.alias_info and a.alias_info.is_write]
        changed = [i for i in written if args[i] is not None]
        tensors = [results] if isinstance(results, Tensor) else list(results)
        after = [t.clone() for t in (*tensors, *(args[i] for i in changed))]
        declared = [str(a.type) for a in func._schema.arguments]
        self.calls.append(Call(name, given, declared, changed, after))
        return results


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone(memory_format=torch.preserve_format)
    return [t.clone() for t in value] if isinstance(value, list) and value and isinstance(value[0], Tensor) else value


def _numbers(*values: int) -> bytes:
    return torch.tensor(values, dtype=torch.int64).numpy().tobytes()


def _listed(values: Tensor) -> bytes:
    return _numbers(values.numel()) + values.numpy().tobytes()


def _tensor(t: Tensor) -> bytes:
    """Its elements in the order of memory, outermost dimension first, and which dimensions these are."""
    order = sorted(range(t.dim()), key=lambda d: (-t.stride(d), d == 1))
    dense = t.permute(order).contiguous()
    flat = dense.new_empty(dense.numel()).copy_(dense.flatten())  # a single element may have any stride
    data = flat.view(torch.uint8).numpy().tobytes()
    return _numbers(TYPES[t.dtype], t.dim(), *dense.shape) + data + _numbers(t.dim(), *order)


def _value(value: Any, declared: str) -> bytes:
    """An argument, by the type that the schema declares."""
    if value is None:
        return _numbers(0)
    if isinstance(value, Tensor):
        return _numbers(1) + _tensor(value)
    if declared == "List[Tensor]":
        return _numbers(6, len(value)) + b"".join(map(_tensor, value))
    if declared in ("int", "bool"):
        return _numbers(2, value)
    if declared == "float":
        return _numbers(3) + _listed(torch.tensor([value], dtype=torch.float64))
    code, dtype = {"List[int]": (4, torch.int64), "List[float]": (5, torch.float64)}[declared]
    return _numbers(code) + _listed(torch.tensor(value, dtype=dtype))


def write(calls: list[Call], path: Path) -> None:
    """The file that run_calls reads."""
    with path.open("wb") as file:
        file.write(_numbers(len(calls)))
        for call in calls:
            file.write(_numbers(len(call.name)) + call.name.encode())
            file.write(_numbers(len(call.args)) + b"".join(map(_value, call.args, call.declared)))
            file.write(_listed(torch.tensor(call.changed, dtype=torch.int64)))


def read(calls: list[Call], path: Path) -> list[list[Tensor]]:
    """What run_calls wrote, in the shapes and types of what was recorded."""
    data, at, found = bytearray(path.read_bytes()), 0, []
    for call in calls:
        tensors = []
        for t in call.results:
            size = t.numel() * t.element_size()
            tensors.append(torch.frombuffer(data[at : at + size], dtype=t.dtype).view(t.shape) if size else t.clone())
            at += size
        found.append(tensors)
    assert at == len(data)
    return found
