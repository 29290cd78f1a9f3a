"""How every op registers its C++ kernels for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.pages import in_large_pages
from fastvoc.runtime.registry import Impl, Op, Spec

FLOAT32_BFLOAT16 = (torch.float32, torch.bfloat16)


def floats(spec: Spec) -> str | None:
    """Refuses what is neither float32 nor bfloat16."""
    return _library.cpu_refusal(spec.dtype, FLOAT32_BFLOAT16)


def float32(spec: Spec) -> str | None:
    """Refuses what is not float32."""
    return _library.cpu_refusal(spec.dtype)


def _laid_out(pack: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`pack` with large tensors in large pages."""

    def packed(params: Any) -> Any:
        made = pack(params)
        return made._replace(**{name: in_large_pages(t) for name, t in made._asdict().items() if isinstance(t, Tensor)})

    return packed


def _with_sums(pack: Callable[[Any], Any], paired: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """`pack` with the sums of a filter's two taps behind them, where it is `paired`."""

    def packed(params: Any) -> Any:
        made = pack(params)
        return made._replace(weight=packing.pack_paired(made.weight)) if paired(params) else made

    return packed


def register_cpp(
    op: Op,
    native: Native[Any],
    pack: Callable[[Any], Any],
    supports: Callable[[Spec], str | None] = floats,
    *,
    stream: Callable[[Any, Any], Any] | None = None,
    pack_exact: Callable[[Any], Any] | None = None,
    paired: Callable[[Any], bool] | None = None,
    either: bool = False,
    run: Callable[..., Tensor] | None = None,
    bind: Callable[[Any], Callable[..., Tensor]] | None = None,
) -> None:
    """Adds implementation `cpp`. `either`: x may be float32 or bfloat16 whatever the weights are.

    `run` and `bind` take the place of the native op's where there is more to do than to call it. `paired` says of which
    parameters the weights' sums are packed, too, unless exact (`packing.pack_paired`).
    """
    if paired is not None:
        pack, pack_exact = _with_sums(pack, paired), pack
    op.register(
        Impl(
            "cpp",
            native.run if run is None else run,
            frozenset({"cpu"}),
            priority=10,
            pack=_laid_out(pack),
            supports=supports,
            stream=stream,
            pack_exact=None if pack_exact is None else _laid_out(pack_exact),
            differs=paired,
            bind=native.bound if run is None else bind,
            either=either,
        )
    )
