"""What a network is made of: parts that compute, with or without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Prepared
from fastvoc.ops.stream import OpStream

Steps = TypeVar("Steps", int, Tensor)  # whole numbers: of one signal, or [B]


class Part:
    """A step of a network that is more than a function of single steps of its inputs.

    `MORE` is the number of further inputs that it takes after the first, before the lengths; an input that is not there
    is None. `REACH`: an output depends on input steps near it, on all of the past, or on all there are.
    """

    MORE: ClassVar[int] = 0
    REACH: Literal["near", "past", "all"] = "near"

    @property
    def dtype(self) -> torch.dtype | None:
        """The type that its first input is brought to; None leaves it."""
        return None

    def output_lengths(self, lengths: Steps) -> Steps:
        """Valid output steps of each item; `lengths` are whole numbers of any kind, or a tensor of them."""
        return lengths

    def per_step(self) -> tuple[int, ...]:
        """Output steps for each step of every further input."""
        return (1,) * self.MORE

    def tiles(self) -> tuple[int, int]:
        """At multiples of how many steps all its tiles begin, and how far beside a step's inputs they may read."""
        return 1, 0

    def width(self) -> int:
        """Channels of its output."""
        return 1

    def owners(self) -> list[nn.Module]:
        """The modules that hold its tensors."""
        return [self] if isinstance(self, nn.Module) else []

    def saved_by_bytes(self) -> float:
        """Multiply-adds of floats for each output step that int8 saves, four of which take the time of one."""
        return 0.0

    def ops(self) -> dict[str, Prepared]:
        """The ops that it runs, by name within it."""
        return {}

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        """What runs it on (x, *more, lengths) unchecked, and whether x may be float32 or bfloat16 whatever `dtype`."""
        raise NotImplementedError

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> OpStream:
        """Its state for a signal in chunks; `further`: its step is given the further inputs, too.

        Raises BackendError where there is no such form.
        """
        raise NotImplementedError


class Plain(Part):
    """A part without weights."""

    def compute(self, x: Tensor, *more: Any) -> Tensor:
        """(x, its further inputs, lengths) -> its output."""
        raise NotImplementedError

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        return self.compute, False

    def __call__(
        self, x: Tensor, *more: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        return self.compute(x, *more, lengths)


class Layer(Part):
    """A part that runs one op on weights; `prepared` knows which implementation, and holds what it packed."""

    prepared: Prepared

    @property
    def dtype(self) -> torch.dtype | None:
        dtype: torch.dtype = self.prepared.dtype()
        return dtype

    def ops(self) -> dict[str, Prepared]:
        return {"": self.prepared}

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        dtype = self.dtype
        assert dtype is not None
        return self.prepared.bound(dtype, backend)

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> OpStream:
        return self.prepared.stream(backend, exact=exact)

    def forward(
        self, x: Tensor, *more: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """[B, C_in, T] -> [B, C_out, T_out], with the op's further inputs; `lengths` are valid steps of x."""
        missing = (None,) * (self.MORE - len(more))
        return self.prepared(x, *more, *missing, lengths, backend=backend)


class OfCodes(Layer):
    """A layer on codes [B, K, T] int64, at which its op looks in every call."""

    @property
    def dtype(self) -> torch.dtype | None:
        return None

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        return self.prepared.bound(torch.int64, backend, checked=True)
