"""The valid steps of a batch's items on their way to a device, and all of them at once for a CUDA graph.

Models compute with lengths on the CPU; kernels read them on the device. A graph has no host to compute with, so there a
forward pass runs with `PlannedLengths`, which know what every layer's arithmetic makes of each length that may come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, cast, overload

import torch
from torch import Tensor

from fastvoc.errors import BackendError


@overload
def on_device(values: Tensor, x: Tensor | torch.device) -> Tensor: ...
@overload
def on_device(values: None, x: Tensor | torch.device) -> None: ...
@overload
def on_device(values: Tensor | None, x: Tensor | torch.device) -> Tensor | None: ...
def on_device(values: Tensor | PlannedLengths | None, x: Tensor | torch.device) -> Tensor | None:
    """Lengths [B], or other whole numbers that came on the CPU, as a kernel on x's device reads them.

    The host does not wait for the copy.
    """
    if isinstance(values, PlannedLengths):
        return values.row()
    device = x.device if isinstance(x, Tensor) else x
    if values is None or values.device == device:
        return values
    plan = _plan.get()
    if plan is not None:
        return plan.constant(values)
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def shortest(lengths: Tensor | None, steps: int) -> int:
    """Valid steps of the shortest item of a batch of so many steps.

    Raises BackendError where torch.compile or torch.export traces, which cannot read them.
    """
    if lengths is None:
        return steps
    if torch.compiler.is_compiling():
        raise BackendError(
            "lengths: expected None inside torch.compile and torch.export, which cannot read them; compile calls"
            " without, or use `voc.graphs()`"
        )
    return int(lengths.min())


_plan: ContextVar[LengthPlan | None] = ContextVar("fastvoc_length_plan", default=None)


def planned() -> bool:
    """Whether a pass of a `LengthPlan` runs, which a graph may record."""
    return _plan.get() is not None


class LengthPlan:
    """The lengths of every layer of one forward pass, as rows of one buffer on the device.

    A first pass with `lengths()` finds out which rows there are. After `freeze`, `fill` computes all of them by one
    kernel from `set`'s lengths, and a second pass, which a graph may capture, only reads them.
    """

    def __init__(self, batch: int, lowest: int, highest: int, device: torch.device) -> None:
        """For `batch` items of lowest..highest steps each."""
        self.batch, self.lowest, self.highest = batch, lowest, highest
        self._device = device
        self._index = torch.full((batch,), highest - lowest, dtype=torch.int64, device=device)
        self._tables: list[Tensor] = []
        self._constants: list[tuple[Tensor, Tensor]] = []
        self._table = self._rows = torch.empty(0, dtype=torch.int64, device="cpu")
        self._frozen = False
        self._current = (highest,) * batch

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around either pass."""
        token = _plan.set(self)
        try:
            yield
        finally:
            _plan.reset(token)

    def constant(self, values: Tensor) -> Tensor:
        """Whole numbers that are the same in every pass, on the device."""
        for known, there in self._constants:
            if torch.equal(known, values):
                return there
        if self._frozen:
            raise BackendError("the captured pass takes numbers to the device that the pass before did not")
        self._constants.append((values.clone(), values.to(self._device)))
        return self._constants[-1][1]

    def lengths(self) -> Tensor:
        """What a model's forward takes as `lengths`."""
        return cast(Tensor, PlannedLengths(self, torch.arange(self.lowest, self.highest + 1, device="cpu")))

    def set(self, lengths: tuple[int, ...]) -> None:
        """The lengths of the next `fill`; the host does not wait."""
        if lengths != self._current:
            index = torch.tensor(lengths, device="cpu") - self.lowest
            index = index.pin_memory() if self._index.is_cuda else index
            self._index.copy_(index, non_blocking=True)
            self._current = lengths

    def freeze(self) -> None:
        """Ends the first pass."""
        self._table = torch.stack(self._tables).to(self._device) if self._tables else self._table
        self._rows = torch.empty((len(self._tables), self.batch), dtype=torch.int64, device=self._device)
        self._frozen = True
        self.fill()

    def fill(self) -> None:
        """Computes the rows of the lengths set last."""
        if self._tables:
            torch.index_select(self._table, 1, self._index, out=self._rows)

    def row(self, values: Tensor) -> Tensor:
        """The row of layers whose lengths are `values` for the items of lowest..highest steps."""
        found = next((i for i, table in enumerate(self._tables) if torch.equal(table, values)), None)
        if self._frozen and found is None:
            raise BackendError("lengths: the captured pass computes lengths that the pass before did not")
        if self._frozen:
            return self._rows[cast(int, found)]
        if found is None:
            self._tables.append(values)
        return values.to(self._device)[self._index]


class PlannedLengths:
    """Stands for a tensor [B] of lengths: `values` holds what it would be for each length that an item may have.

    Takes whole-number arithmetic; `min`, `max` and `any` are those over all items that may come. Everything else
    would read an item's own length on the host, which raises BackendError.
    """

    dtype, device = torch.int64, torch.device("cpu")

    def __init__(self, plan: LengthPlan, values: Tensor) -> None:
        self._plan, self._values = plan, values

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self._plan.batch,))

    def numel(self) -> int:
        return self._plan.batch

    def __len__(self) -> int:
        return self._plan.batch

    def min(self) -> Tensor:
        return self._values.min()

    def max(self) -> Tensor:
        return self._values.max()

    def any(self) -> Tensor:
        return self._values.any()

    def row(self) -> Tensor:
        """[B] on the device."""
        return self._plan.row(self._values)

    def _made(self, values: Tensor) -> PlannedLengths:
        return PlannedLengths(self._plan, values)

    def __add__(self, other: int) -> PlannedLengths:
        return self._made(self._values + other)

    __radd__ = __add__

    def __sub__(self, other: int) -> PlannedLengths:
        return self._made(self._values - other)

    def __rsub__(self, other: int) -> PlannedLengths:
        return self._made(other - self._values)

    def __mul__(self, other: int) -> PlannedLengths:
        return self._made(self._values * other)

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> PlannedLengths:
        return self._made(self._values // other)

    def __mod__(self, other: int) -> PlannedLengths:
        return self._made(self._values % other)

    def __neg__(self) -> PlannedLengths:
        return self._made(-self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        _refuse(name)

    def __getitem__(self, index: Any) -> NoReturn:
        _refuse("[]")

    def __iter__(self) -> Any:
        _refuse("iteration")


def _refuse(what: str) -> NoReturn:
    raise BackendError(
        f"lengths ({what}): read on the host, which a CUDA graph cannot wait for; backends cuda and triton mask on the"
        " device"
    )
