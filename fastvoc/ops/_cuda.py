"""How every op registers its CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastvoc import _library
from fastvoc.ops.activation import Activation
from fastvoc.registry import Impl, Op, Spec


def _accept(_: Spec) -> str | None:
    return None


def register_cuda(
    op: Op,
    run: Callable[..., Tensor],
    pack: Callable[[Any], Any],
    supports: Callable[[Spec], str | None] = _accept,
) -> None:
    """Adds implementation `cuda`, below torch: not yet run on a device, so only by force."""

    def verdict(spec: Spec) -> str | None:
        return _library.cuda_refusal(spec.dtype) or supports(spec)

    op.register(Impl("cuda", run, frozenset({"cuda"}), priority=-10, pack=pack, supports=verdict))


def cuda_activation_refusal(act: Activation, *, tanh: bool = False) -> str | None:
    """None when the CUDA kernels fuse an activation, otherwise why not; `tanh` where they take that too."""
    if act.kind in ("identity", "leaky_relu") or (tanh and act.kind == "tanh"):
        return None
    return f"does not fuse {act.kind}"
