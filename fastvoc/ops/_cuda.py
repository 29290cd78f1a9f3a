"""How every op registers its CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastvoc import _library
from fastvoc.registry import Impl, Op, Spec


def register_cuda(op: Op, run: Callable[..., Tensor], pack: Callable[[Any], Any]) -> None:
    """Adds implementation `cuda`, below torch: not yet run on a device, so only by force."""
    op.register(Impl("cuda", run, frozenset({"cuda"}), priority=-10, pack=pack, supports=_supports))


def _supports(spec: Spec) -> str | None:
    return _library.cuda_refusal(spec.dtype)
