"""Whether weights are still those that were packed: asked for in every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

_place: Callable[[Tensor], int] = Tensor.data_ptr
_writes: Callable[[Tensor], int] = Tensor._version.__get__  # type: ignore[attr-defined]


class Weights:
    """Tensors as they are now: where they lie, how often they were written, and on the CPU two values of each.

    A change through `.data` counts no write. One of every value of a tensor, as `copy_`, `mul_` or a moving average
    makes it, is seen on the CPU by the values; one of a few values is not, nor is any on another device, where the host
    would have to wait.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._stamp = _stamp(tensors)
        # `.data = ` takes a storage from its tensor; what is read must outlive that.
        self._storages = [t.untyped_storage() for t in tensors]
        places = [place for t in tensors for place in _places(t)]
        first, last = min(places, default=0), max(places, default=-1)
        self._memory = np.asarray(_Memory(first, last - first + 1)) if places else np.empty(0, np.uint8)
        self._at = np.array(places, np.int64) - first
        self._values = self._read()

    def are(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the same tensors, with the same values."""
        return self._stamp == _stamp(tensors) and self._values == self._read()

    def hold(self) -> bool:
        """Whether the memory that was packed from has the same values: all that can be asked without the tensors."""
        return self._values == self._read()

    def _read(self) -> bytes:
        return self._memory.take(self._at).tobytes()


class _Memory:
    """Bytes of this process for numpy, of which only those that belong to a tensor may be read."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3}


def _stamp(tensors: Sequence[Tensor]) -> list[int]:
    try:
        return [*map(_place, tensors), *map(_writes, tensors)]
    except RuntimeError:  # inference tensors count no writes
        return [*map(_place, tensors), *(0 if t.is_inference() else t._version for t in tensors)]


def _places(t: Tensor) -> Iterator[int]:
    """The addresses of the bytes of a tensor's middle and last value."""
    if t.device.type != "cpu" or not t.numel() or not t.data_ptr():
        return
    for index in {tuple(n // 2 for n in t.shape), tuple(n - 1 for n in t.shape)}:
        offset = sum(i * step for i, step in zip(index, t.stride(), strict=True))
        start = t.data_ptr() + offset * t.element_size()
        yield from range(start, start + t.element_size())
