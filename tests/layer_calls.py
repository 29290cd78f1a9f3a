"""Every layer of a model with what it is called with, for tests that run each on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Prepared
from fastvoc.runtime.registry import OPS, Spec


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: its name, op and arguments."""

    layer: str
    op: str
    x: Tensor
    args: tuple[Any, ...]


def record(model: nn.Module, run: Callable[[], Any]) -> list[LayerCall]:
    """The first call of every layer while the model runs by the reference."""
    calls: dict[int, tuple[Tensor, tuple[Any, ...]]] = {}
    original = Prepared.__call__

    def spy(layer: Prepared, x: Tensor, *args: Any, backend: str | None = None) -> Any:
        kept = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        calls.setdefault(id(layer), (x.clone(), kept))
        return original(layer, x, *args, backend=backend)

    # A module that is listened to is called itself, not by what the model bound.
    listening = [module.register_forward_pre_hook(lambda *_: None) for module in model.modules()]
    with mock.patch.object(Prepared, "__call__", spy), torch.inference_mode():
        run()
    for handle in listening:
        handle.remove()
    assert calls
    named = model.layers().items()  # type: ignore[operator]
    return [LayerCall(name, p.explain()[0], *calls[id(p)]) for name, p in named if id(p) in calls]


def computes_in(layer: Prepared, dtype: torch.dtype) -> torch.dtype:
    """What a layer of a model that was cast to `dtype` is called in: some stay in float32 or float64."""
    own = layer.weight().dtype
    return own if own.itemsize > dtype.itemsize else dtype


def takes(layer: Prepared, op: str, impl: str, dtype: torch.dtype) -> bool:
    """Whether an implementation computes a layer of a model in `dtype` on a device."""
    known = OPS[op].impls.get(impl)
    return known is not None and known.supports(Spec("cuda", computes_in(layer, dtype), layer.params())) is None


def placed(value: Any, device: str, dtype: torch.dtype) -> Any:
    """An argument on a device, floats in a dtype; what an op takes on the CPU, lengths and rows, stays there."""
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return value.to(device, dtype)
    return value if value.dim() == 1 else value.to(device)
