"""What generators check alike: configurations (an ArgumentError names the field), seeds of noise, further inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError, shown
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.whole import whole_numbers

Number: TypeAlias = "int | float | np.integer[Any] | np.floating[Any]"
_NUMBERS = (int, float, np.integer, np.floating)
Tensors = Iterator[tuple[str, tuple[int, ...]]]
_MOST_ROUNDS = 256


class Generator(Protocol):
    """The fields of a generator that upsamples in stages, each followed by residual blocks."""

    @property
    def upsample_rates(self) -> tuple[int, ...]: ...
    @property
    def upsample_kernel_sizes(self) -> tuple[int, ...]: ...
    @property
    def upsample_initial_channel(self) -> int: ...
    @property
    def resblock(self) -> str: ...
    @property
    def resblock_kernel_sizes(self) -> tuple[int, ...]: ...
    @property
    def resblock_dilation_sizes(self) -> tuple[tuple[int, ...], ...]: ...


def require(config: object, ok: bool, field: str, expected: str) -> None:
    """Raises ArgumentError that shows the field's value and what was expected, unless `ok`."""
    if not ok:
        raise ArgumentError(f"{type(config).__name__}.{field}: got {getattr(config, field)!r}, expected {expected}")


def positive(values: Sequence[Any]) -> bool:
    """Whether there are values, and all are positive integers."""
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)


def require_positive(config: object, *names: str) -> None:
    """Single positive integers."""
    for name in names:
        require(config, positive((getattr(config, name),)), name, "a positive integer")


def require_rounds(config: object, name: str) -> None:
    """A number of rounds; beyond the most that are taken lies only a file made to exhaust time."""
    rounds = getattr(config, name)
    ok = isinstance(rounds, int) and not isinstance(rounds, bool) and 0 <= rounds <= _MOST_ROUNDS
    require(config, ok, name, f"a number of rounds from 0 to {_MOST_ROUNDS}")


def check_stages(c: Generator) -> None:
    """Upsampling rates and kernels, channels to halve, residual blocks that keep the length."""
    stages = len(c.upsample_rates)
    for name in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"):
        require(c, positive(getattr(c, name)), name, "positive integers")
    require(c, len(c.upsample_kernel_sizes) == stages, "upsample_kernel_sizes", f"{stages} values, one per rate")
    require(
        c,
        c.upsample_initial_channel >> stages > 0,
        "upsample_initial_channel",
        f"at least {1 << stages}, since each of {stages} stages halves it",
    )
    require(c, c.resblock in ("1", "2"), "resblock", '"1" or "2"')
    kernels, dilations = c.resblock_kernel_sizes, c.resblock_dilation_sizes
    require(
        c,
        len(dilations) == len(kernels) and all(positive(d) for d in dilations),
        "resblock_dilation_sizes",
        f"{len(kernels)} lists of positive integers, one per kernel",
    )
    keeps_length = all((k - 1) * d % 2 == 0 for k, row in zip(kernels, dilations, strict=True) for d in row)
    keeps_length = keeps_length and (c.resblock == "2" or all(k % 2 == 1 for k in kernels))
    require(c, keeps_length, "resblock_kernel_sizes", "kernels whose padding keeps the length (odd ones)")


def conv_tensors(name: str, shape: tuple[int, int, int], bias: int) -> Tensors:
    """The tensors of one convolution; no bias where it has 0 values."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", (bias,)


def item_seeds(seed: int | Sequence[int] | Tensor, batch: int, device: torch.device) -> Tensor:
    """[batch] int64 on a device: one seed for each item, the same for all where `seed` is one integer.

    Raises DtypeError for anything but integers of 64 bits, ShapeError for another number of them.
    """
    seeds = whole_numbers(seed, "seed")
    if seeds.dim() and seeds.shape != (batch,):
        raise ShapeError(f"seed: expected an integer or [{batch}], one per item, got {list(seeds.shape)}")
    return on_device(seeds.expand(batch).contiguous(), device)


def stream_seeds(seed: int | Sequence[int] | Tensor, device: torch.device) -> Tensor:
    """`item_seeds` of as many items as there are seeds, one where `seed` is a number."""
    sized = hasattr(seed, "__len__") and getattr(seed, "ndim", 1) != 0
    return item_seeds(seed, len(seed) if sized else 1, device)  # type: ignore[arg-type]


def check_like(name: str, x: Tensor, *weights: Tensor) -> None:
    """x must be of the dtype of one of these weights, on their device. Raises DtypeError or DeviceError naming it."""
    if x.dtype not in [weight.dtype for weight in weights]:
        raise DtypeError(f"{name}: expected {weights[-1].dtype} like the weights, got {x.dtype}")
    if x.device != weights[-1].device:
        raise DeviceError(f"{name}: expected a tensor on {weights[-1].device} like the weights, got {x.device}")


def check_floats(name: str, value: object, shape: tuple[int, ...] | None, device: torch.device) -> None:
    """A floating-point tensor of this shape, [B > 0, T > 0] when None, on a device.

    Raises DtypeError, DeviceError or ShapeError naming it.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DtypeError(f"{name}: expected a floating-point tensor, got {got}")
    if value.device != device:
        raise DeviceError(f"{name}: expected a tensor on {device} like the model, got {value.device}")
    if (value.dim() != 2 or 0 in value.shape) if shape is None else value.shape != shape:
        expected = "[B > 0, T > 0]" if shape is None else list(shape)
        raise ShapeError(f"{name}: expected {expected}, got {list(value.shape)}")


def is_number(value: object) -> bool:
    """Whether a value is a finite number of ordinary size."""
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and bool(abs(value) < 1e30)


def filled(name: str, value: Tensor | Number | None, shape: tuple[int, ...], like: Tensor) -> Tensor | None:
    """A floating-point tensor of this shape on the device of `like`; a number is made one, of the type of `like`.

    None stays None. Raises as `check_floats`, ArgumentError for a number that is not finite.
    """
    if isinstance(value, _NUMBERS) and not isinstance(value, bool):
        if not is_number(value):
            raise ArgumentError(f"{name}: expected a finite number or {list(shape)}, got {shown(value)}")
        return torch.full(shape, float(value), dtype=like.dtype, device=like.device)
    if value is not None:
        check_floats(name, value, shape, like.device)
    return value  # type: ignore[return-value]  # a tensor, as was checked


def chunk_f0(x: Tensor, inputs: Mapping[str, object]) -> dict[str, Tensor]:
    """F0 [n] or [B, n] in Hz that comes with a chunk x [B, C, n] of a stream, and nothing else -> [B, 1, n].

    Raises ArgumentError for another input, DtypeError or ShapeError for an F0 that does not fit.
    """
    if unknown := sorted(set(inputs) - {"f0"}):
        raise ArgumentError(f"{unknown[0]}: no such input of a stream; it takes f0")
    f0 = inputs["f0"]
    if not isinstance(f0, Tensor):
        try:
            f0 = torch.as_tensor(np.asarray(f0), device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise DtypeError(f"f0: expected floating-point values in Hz, got {shown(f0)}") from None
    f0 = f0[None] if f0.dim() == 1 else f0
    if not f0.is_floating_point():
        raise DtypeError(f"f0: expected floating-point values in Hz, got {f0.dtype}")
    if f0.shape != (x.shape[0], x.shape[2]):
        raise ShapeError(f"f0: expected {[x.shape[0], x.shape[2]]}, one value per frame, got {list(f0.shape)}")
    return {"f0": f0.to(x.device)[:, None]}
