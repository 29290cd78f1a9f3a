"""A model's layers for calls that autograd does not watch: asked once, not one by one, whether a weight changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Layer
from fastvoc.nn.weights import Weights
from fastvoc.registry import settings


class TypedLayer(Layer, Protocol):
    """A layer whose inputs and outputs are of one floating type."""

    @property
    def dtype(self) -> torch.dtype:
        """That type."""
        ...


class Bound:
    """Layers that are each called with their input alone, of any floating type; `trusted` where an input that the first
    one takes is all that the others ask for.

    Remembers, per forced backend and settings, what runs each of them, until a weight changes. One tuple is replaced as
    a whole, so that threads may share it without a lock.
    """

    def __init__(self, layers: Sequence[TypedLayer], *, trusted: bool) -> None:
        self._layers, self._trusted = layers, trusted
        modules = [layer for layer in layers if isinstance(layer, nn.Module)]
        self._hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._kept: tuple[Any, Any, dict[Any, dict[TypedLayer, Callable[..., Tensor]]]] = (None, None, {})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (None, None, {})}

    def now(self, backend: str | None) -> Callable[[Any, Tensor], Tensor] | None:
        """What runs a layer on its input, as the weights are now; None where autograd or a hook must see the layers."""
        if torch.is_grad_enabled() or any(self._hooks):
            return None
        tensors = [tensor for layer in self._layers for tensor in layer.prepared.tensors()]
        packings = [layer.prepared.packings for layer in self._layers]
        key = backend, settings()
        weights, packed, tables = self._kept
        same = packed == packings and weights.are(tensors)
        if not same or key not in tables:
            weights = weights if same else Weights(tensors)
            table = {layer: self._run(layer, backend) for layer in self._layers}
            tables = {**(tables if same else {}), key: table}
            self._kept = weights, packings, tables
        runs = tables[key]
        return lambda layer, x: runs[layer](x)

    def _run(self, layer: TypedLayer, backend: str | None) -> Callable[[Tensor], Tensor]:
        dtype = layer.dtype
        if self._trusted:
            return layer.prepared.trusted(dtype, backend)
        run = layer.prepared.bound(dtype, backend)
        return lambda x: run(x.to(dtype))
