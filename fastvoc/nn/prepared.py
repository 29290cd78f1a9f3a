"""The implementation and packed weights of one layer, kept until a weight changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvoc.registry import Impl, Op, Spec, requested


class Prepared:
    """Remembers, per device, dtype and forced backend, which implementation runs and what it packed.

    One tuple is replaced as a whole, so that threads may share a layer without a lock.
    """

    def __init__(self, op: Op, params: Callable[[], Any], tensors: Callable[[], Sequence[Tensor]]) -> None:
        self._op = op
        self._params = params
        self._tensors = tensors
        self._kept: tuple[Any, dict[Any, tuple[Impl, Any]]] = (None, {})

    def get(self, device: torch.device, dtype: torch.dtype, backend: str | None) -> tuple[Impl, Any]:
        """The implementation and its packed weights. Raises BackendError when a forced one refuses."""
        stamp = tuple([(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._tensors()])
        key = (device, dtype, backend or requested(self._op.name))
        kept, entries = self._kept
        if kept == stamp and key in entries:
            return entries[key]
        params = self._params()
        impl = self._op.select(Spec(device.type, dtype, params), key[2])
        with torch.no_grad():
            entry = (impl, impl.pack(params))
        self._kept = (stamp, {**(entries if kept == stamp else {}), key: entry})
        return entry
