"""A model's layers for calls that autograd does not watch: asked once, not one by one, whether a weight changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Layer, stamp
from fastvoc.registry import settings


class Bound:
    """Layers that are each called with their input alone.

    Remembers, per forced backend and settings, what runs each of them, until a weight changes. One tuple is replaced as
    a whole, so that threads may share it without a lock.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._modules = [layer for layer in layers if isinstance(layer, nn.Module)]
        self._kept: tuple[Any, dict[Any, dict[Layer, Callable[..., Tensor]]]] = (None, {})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (None, {})}

    def now(self, backend: str | None) -> Callable[[Any, Tensor], Tensor] | None:
        """What runs a layer on its input, as the weights are now; None where autograd or a hook must see the layers."""
        if torch.is_grad_enabled() or any(m._forward_hooks or m._forward_pre_hooks for m in self._modules):
            return None
        tensors = [tensor for layer in self._layers for tensor in layer.prepared.tensors()]
        state = [*stamp(tensors), *(layer.prepared.packings for layer in self._layers)]
        key = backend, settings()
        kept, tables = self._kept
        if kept != state or key not in tables:
            table = {layer: layer.prepared.bound(layer.prepared.weight().dtype, backend) for layer in self._layers}
            tables = {**(tables if kept == state else {}), key: table}
            self._kept = state, tables
        runs = tables[key]
        return lambda layer, x: runs[layer](x)
