"""Loads the native libraries that a build left beside this file, once, when an op first asks for one."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastvoc.errors import BackendError
from fastvoc.runtime import env

SCHEMAS: list[str] = []  # of the native ops that were declared so far
ISAS = ("portable", "avx2", "avx512", "avx512_bf16")
CALLS = "e9e49dac8f4964b1"  # what csrc/common/calls.h says of itself: the arguments of all native ops
_HERE = Path(__file__).parents[1]  # where a build leaves the libraries


def define(schema: str) -> None:
    """Declares a native op in the namespace `_fastvoc`; its kernels come from the libraries."""
    _definitions().define(schema)
    SCHEMAS.append(schema)


@cache
def native(name: str) -> Callable[..., Any]:
    """What calls the native op `name` in the hot paths, past the Python method around it."""
    overload = getattr(torch.ops._fastvoc, name).default
    call: Callable[..., Any] = overload._op
    return call


@cache
def _definitions() -> torch.library.Library:
    return torch.library.Library("_fastvoc", "DEF")


def build_record() -> dict[str, Any] | None:
    """What the build wrote of itself: mode, revision, and of each library its facts or why it was left out."""
    path = _HERE / "_build_info.json"
    record: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return record


@cache
def cpu_problem() -> str | None:
    """None when the CPU library is loaded, otherwise why it is not. Loads it at the first call.

    Raises BackendError where it was built from other sources, as `cuda_problem` does.
    """
    path = _HERE / "_C_cpu.so"
    if not path.exists():
        return "the CPU library is not built (pure-Python install)"
    wanted = env.ISA.get()
    if wanted and wanted not in ISAS:
        return f"FASTVOC_ISA={wanted!r} is unknown; expected one of {', '.join(ISAS)}"
    problem = _load(path)
    if problem is None and wanted:
        torch.ops._fastvoc.limit_isa(ISAS.index(wanted))
    return problem


def cpu_refusal(dtype: torch.dtype, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> str | None:
    """None when the CPU kernels, which take `dtypes`, compute in `dtype`, otherwise why not."""
    problem = cpu_problem()
    if problem is None and dtype not in dtypes:
        return f"computes in {' and '.join(str(d) for d in dtypes)}, not in {dtype}"
    return problem


_INT32_TERMS = 33000  # products of a byte and a signed byte whose sum fits into 32 bits, the zero point's part included


def cpu_integer_refusal(dtype: torch.dtype, terms: int) -> str | None:
    """None when the CPU kernels sum `terms` products of whole numbers for activations in `dtype`, otherwise why not."""
    problem = cpu_problem()
    if problem is None and dtype is not torch.float32:
        return f"multiplies whole numbers for activations in torch.float32, not in {dtype}"
    if problem is None and terms > _INT32_TERMS:
        return f"sums up to {_INT32_TERMS} products of whole numbers, not {terms}"
    return problem


@cache
def cuda_problem() -> str | None:
    """None when the CUDA library is loaded, otherwise why it is not. Loads it at the first call."""
    path = _HERE / "_C_cuda.so"
    if not path.exists():
        return "the CUDA library is not built"
    if torch.version.cuda is None:
        return "this torch is a CPU build"
    return _load(path)


def cuda_refusal(dtype: torch.dtype) -> str | None:
    """None when the CUDA kernels compute in `dtype`, otherwise why not."""
    problem = cuda_problem()
    if problem is None and dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"computes in float32, float16 and bfloat16, not in {dtype}"
    return problem


def cpu_isa() -> str | None:
    """The instruction set that the CPU kernels use now, or None without the library."""
    return None if cpu_problem() else ISAS[torch.ops._fastvoc.cpu_isa()]


def bfloat16_problem() -> str | None:
    """None where the CPU kernels multiply bfloat16 in one instruction or are not there, otherwise why they do not."""
    isa = cpu_isa()
    if isa is None or isa == "avx512_bf16":
        return None
    return f"the instruction set in use, {isa}, has no products of bfloat16: they take longer than those of float32"


def _load(path: Path) -> str | None:
    """Why the library cannot be loaded. Raises BackendError for one that reads calls otherwise than these sources."""
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{path.name} cannot be loaded: {error}"
    try:
        calls = ctypes.c_char_p(ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(str(path)), "calls_digest"))).value
    except ValueError:
        calls = b"none"
    if calls != CALLS.encode():
        raise BackendError(
            f"{path}: built from other sources than these Python files (calls {calls!r}, expected {CALLS}); build it"
            " again: `pip install .`, or beside the sources `python setup.py build_native --inplace`"
        )
    return None


for _schema in ("cpu_isa() -> int", "limit_isa(int isa) -> int"):
    define(_schema)
