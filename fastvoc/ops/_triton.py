"""How every op registers its Triton kernels, which `fastvoc.kernels` holds under the op's own name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from shutil import which
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastvoc.ops.stream import Rows
from fastvoc.runtime import env
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Impl, Op, Spec

# Makes an op's form for chunks on a GPU of parameters, an implementation's `run`, what is packed and what cuts rows.
DeviceStream = Callable[[Any, Callable[..., Tensor], Any, Rows | None], Any]
_Run: TypeAlias = Callable[..., Tensor]
_Pack: TypeAlias = Callable[[Any], Any]
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _accept(_: Spec) -> str | None:
    return None


def float32_only(spec: Spec) -> str | None:
    """Refuses other dtypes: phases, transforms and distances are float32 always."""
    return None if spec.dtype is torch.float32 else f"computes in torch.float32, not in {spec.dtype}"


def register_triton(
    op: Op,
    supports: Callable[[Spec], str | None] = _accept,
    stream: DeviceStream | None = None,
    pack: Callable[[Any], Any] | None = None,
    around: Callable[[_Run, _Pack], tuple[_Run, _Pack]] | None = None,
) -> None:
    """Adds implementation `triton`; its kernels are imported when first asked for.

    On the CPU it takes part only under Triton's interpreter, behind all others, so that only force chooses it.
    `stream` makes the form for chunks, where there is one. `pack` takes the place of the
    kernels' own where they read what another implementation's do. `around` makes of running and packing what takes
    their place where there is more to do than to call the kernels.
    """
    name = f"fastvoc.kernels.{op.name}"
    interpreted = _interpreted()

    def run(x: Tensor, packed: Any, *args: Any) -> Tensor:
        there = [a if isinstance(a, int) else on_device(a, x) for a in args]
        kernel: Callable[..., Tensor] = importlib.import_module(name).run
        if not _autotuning():
            return kernel(x, packed, *there)
        y: Tensor = importlib.import_module("fastvoc.kernels.tuned.search").run(kernel, x, packed, there)
        return y

    def packed(params: Any) -> Any:
        return importlib.import_module(name).pack(params)

    def verdict(spec: Spec) -> str | None:
        if spec.device != "cuda" and not interpreted:
            return "runs on cuda; elsewhere only in Triton's interpreter (TRITON_INTERPRET=1 before the import)"
        if (problem := triton_problem()) is not None:
            return problem
        if spec.dtype not in _DTYPES and spec.dtype.is_floating_point:
            return f"computes in float32, float16 and bfloat16, not in {spec.dtype}"
        return supports(spec)

    own = packed if pack is None else pack
    runs, packs = (run, own) if around is None else around(run, own)
    op.register(
        Impl(
            "triton",
            runs,
            frozenset({"cuda", "cpu"}),
            priority=-20 if interpreted else 5,
            pack=packs,
            supports=verdict,
            stream=in_chunks(stream, runs, lambda _: triton_rows()),
        )
    )


def in_chunks(
    stream: DeviceStream | None, run: Callable[..., Tensor], rows: Callable[[Any], Rows | None]
) -> Callable[[Any, Any], Any] | None:
    """An op's form for chunks as an implementation gives it: of parameters and what is packed."""
    return None if stream is None else lambda params, packed: stream(params, run, packed, rows(params))


def refuse_triton(op: Op, reason: str) -> None:
    """Says why an op has no Triton kernel, to `fastvoc.explain` and where it is forced."""

    def run(*_: Any) -> Tensor:
        raise AssertionError(f"{op.name}: chosen although refused")

    op.register(Impl("triton", run, frozenset({"cuda", "cpu"}), priority=-20, supports=lambda _: reason))


def triton_rows() -> Rows:
    """Cuts the rows of a chunk by Triton."""
    rows: Rows = importlib.import_module("fastvoc.kernels.stream_rows").NATIVE
    return rows


def triton_sum() -> Native[Any]:
    """Adds up two branches of a stream by Triton, as `fastvoc.ops.join.NATIVE` does in C++."""
    summed: Native[Any] = importlib.import_module("fastvoc.kernels.stream_sum").NATIVE
    return summed


def rows_on(weights: Sequence[Tensor]) -> Rows | None:
    """What cuts the rows of a chunk for kernels that are not Triton's own: Triton where it runs, else torch's ops."""
    return triton_rows() if any(t.is_cuda for t in weights) and triton_problem() is None else None


@cache
def triton_problem() -> str | None:
    """None when Triton and the kernels are installed and their launchers can be compiled, otherwise why not."""
    missing = [name for name in ("triton", "fastvoc.kernels") if find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed"
    if _interpreted() or os.environ.get("CC") or any(map(which, ("clang", "gcc"))):
        return None
    return "Triton compiles its launchers with a C compiler, and neither gcc nor clang is on the PATH (or named by CC)"


@cache
def _autotuning() -> bool:
    return bool(env.AUTOTUNE.get())


def _interpreted() -> bool:
    return env.INTERPRET.get() == "1"
