"""The CUDA library's own sources as CPU functions: compiled as plain C++ and called as torch would call the ops."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from kept import kept
from native_calls import TYPES
from torch import Tensor

from fastvoc.ops import mrf as mrf_op
from fastvoc.ops import mrf_apart
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import OPS, Impl
from helpers import ROOT, compiler

FOLDER, STAND_IN = ROOT / "tests/ops/emulation", ROOT / "tests/arm/include"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-free-nonheap-object")  # gcc 12 is wrong there
COMPILE = ("-O2", "-std=c++20", *WARNINGS, "-shared", "-fPIC")
SANITIZERS = "FASTVOC_EMULATION_SANITIZERS"  # variable: what the kernels are compiled with, such as address,undefined
SHARED_LIMITS = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_120": 99 * 1024}


@dataclass(frozen=True)
class Device:
    """What is emulated: shared memory that a block may have, multiprocessors, and how many of them a process has.

    `backwards`: a block's threads run last first.
    `dry`: kernels are not run, and outputs stay NaN.
    `hopper`: it has the instructions of sm_90a, whose bulk copies are there at once if `early`, else as late as may be.
    """

    shared: int = SHARED_LIMITS["sm_90"]
    multiprocessors: int = 6
    granted: int | None = None  # all of them
    backwards: bool = False
    dry: bool = False
    hopper: bool = False
    early: bool = False


_device = Device()
_launches = 0


def set_device(**facts: Any) -> None:
    """The device of further calls: the usual one but for these facts."""
    global _device
    _device = Device(**facts)


@cache
def library(op: str) -> ctypes.CDLL:
    """csrc/cuda/<op>*.cu and what calls it, built once for all sessions."""
    sanitizers = os.environ.get(SANITIZERS)
    flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-g"] if sanitizers else []
    includes = [f"-I{path}" for path in (FOLDER, STAND_IN, ROOT / "csrc")]
    sources = [part for path in sorted((ROOT / "csrc/cuda").glob(f"{op}*.cu")) for part in ("-include", str(path))]

    def build(target: Path) -> None:  # one unit: the headers take longer than the kernels
        command = [compiler(), *COMPILE, *flags, *includes, *sources, str(FOLDER / "calls.cpp"), "-o", str(target)]
        subprocess.run(command, check=True)

    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    made_of = [op, version, *COMPILE, *flags, FOLDER, STAND_IN, ROOT / "csrc/cuda", ROOT / "csrc/common"]
    functions = ctypes.CDLL(str(kept("emulation.so", made_of, build)))
    functions.call.restype = ctypes.c_char_p
    return functions


class _Given(ctypes.Structure):
    """As calls.cpp has it."""

    _fields_ = [
        ("kind", ctypes.c_int64),
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("data", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("sizes", ctypes.c_int64 * 6),
        ("strides", ctypes.c_int64 * 6),
        ("type", ctypes.c_int64),
    ]


def _given(value: Any, declared: str) -> _Given:
    """A value by the type that the schema declares; lists keep their memory beside it."""
    made = _Given()
    if value is None:
        return made
    if isinstance(value, Tensor):
        made.kind, made.data, made.count, made.type = 1, value.data_ptr(), value.dim(), TYPES[value.dtype]
        made.sizes[: value.dim()], made.strides[: value.dim()] = value.shape, value.stride()
    elif declared in ("int", "bool"):
        made.kind, made.integer = 2, int(value)
    elif declared == "float":
        made.kind, made.number = 3, float(value)
    else:
        made.kind, item = (4, ctypes.c_int64) if declared == "List[int]" else (5, ctypes.c_double)
        made.memory = (item * len(value))(*value)  # type: ignore[attr-defined]
        made.data, made.count = ctypes.addressof(made.memory), len(value)  # type: ignore[attr-defined]
    return made


def call(source: str, name: str, declared: Sequence[Any], *args: Any) -> Any:
    """A native op with its schema's arguments, by csrc/cuda/<source>.cu. Raises RuntimeError where that refuses."""
    global _launches
    args = (*args, *[None] * (len(declared) - len(args)))
    given = [_given(value, str(argument.type)) for value, argument in zip(args, declared, strict=True)]
    launches, result = ctypes.c_int64(), _Given()
    facts = ctypes.c_int64(len(given)), _device.shared, ctypes.c_int64(_device.multiprocessors)
    granted = _device.multiprocessors if _device.granted is None else _device.granted
    facts = (*facts, ctypes.c_int64(granted))
    flags = sum(on << i for i, on in enumerate((_device.backwards, _device.dry, _device.hopper, _device.early)))
    list_of = (_Given * len(given))(*given)
    problem = library(source).call(name.encode(), list_of, *facts, flags, ctypes.byref(launches), ctypes.byref(result))
    if problem is not None:
        raise RuntimeError(problem.decode())
    _launches += launches.value
    return bool(result.integer) if result.kind == 2 else _tensor(result)


def _tensor(result: _Given) -> Tensor:
    sizes, strides = list(result.sizes[: result.count]), list(result.strides[: result.count])
    dtype = next(dtype for dtype, number in TYPES.items() if number == result.type)
    memory = (ctypes.c_char * (torch.Size(sizes).numel() * dtype.itemsize)).from_address(result.data)
    return torch.frombuffer(bytearray(memory), dtype=dtype).as_strided(sizes, strides)


def _run(name: str, x: Tensor, packed: Any, *args: Any, **named: Any) -> Tensor:
    """An op by its emulated kernels, which write into memory full of NaN."""
    op, native = OPS[name], import_module(f"fastvoc.ops.{name}").NATIVE
    if named:
        bound = signature(op.reference).bind(x, None, *args, **named)
        bound.apply_defaults()
        args = bound.args[2:]
    with emulating(name, native):
        y: Tensor = op.impls["cpp"].run(x, packed, *args)
    return y


def _stream(name: str, impl: Impl, params: Any, packed: Any) -> Any:
    """An op's stream on a device by its emulated kernels."""
    assert impl.stream is not None
    native = import_module(f"fastvoc.ops.{name}").NATIVE
    with emulating(name, native):
        state = impl.stream(params, packed)
    step = state.step

    def emulated_step(*args: Any) -> Tensor:
        with emulating(name, native):
            y: Tensor = step(*args)
        return y

    state.step = emulated_step
    return state


def emulating(source: str, native: Native[Any]) -> Any:
    """Inside a `with` block the native op is the emulated one."""
    op: Any = native.op
    return mock.patch.object(native, "op", partial(call, source, native.name, op._schema.arguments))


_NAMES = sorted(
    path.stem for path in (ROOT / "csrc/cuda").glob("*.cu") if (ROOT / f"fastvoc/ops/{path.stem}.py").exists()
)
RUN: dict[str, Callable[..., Tensor]] = {name: partial(_run, name) for name in _NAMES}
RUN["square_conv"] = RUN["conv1d"]


def pack_mrf(params: Any, tiles: bool | None = None) -> Any:
    """The weights as the device would have them; `tiles` asks for tensor cores or against them."""
    if tiles is None:
        with emulating("mrf", mrf_op.HAS_TILE), emulating("mrf", mrf_op.HAS_STAGE):
            return mrf_apart.first(mrf_op._pack_cuda, "cuda")(params)
    plain = mrf_op._pack_plain(params)
    return mrf_op.pack_tiles(params, plain) if tiles else plain


@contextmanager
def dry_launches() -> Iterator[Callable[[], int]]:
    """Inside a `with` block the kernels are not run, and outputs stay NaN; the yielded function counts the launches."""
    global _device
    before, start = _device, _launches
    _device = replace(before, dry=True)
    try:
        yield lambda: _launches - start
    finally:
        _device = before


@contextmanager
def emulated() -> Iterator[None]:
    """Inside a `with` block, backend `cuda` runs the emulated kernels on the CPU."""
    for name in RUN:
        import_module(f"fastvoc.ops.{name}")
    kept = {name: OPS[name].impls["cuda"] for name in RUN}
    try:
        for name, run in RUN.items():
            pack = pack_mrf if name == "mrf" else kept[name].pack
            stream = None if kept[name].stream is None else partial(_stream, name, kept[name])
            here = frozenset({"cpu"})
            OPS[name].impls["cuda"] = Impl("cuda", run, here, priority=-10, pack=pack, stream=stream)
        yield
    finally:
        for name, impl in kept.items():
            OPS[name].impls["cuda"] = impl
