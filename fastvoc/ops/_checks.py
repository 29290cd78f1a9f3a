"""Argument checks that every op shares; all raise before any kernel starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.runtime.lengths import shortest

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_activations(op: str, x: Tensor, channels: int, weight: Tensor, lengths: Tensor | None = None) -> None:
    """`x` must be float [B, channels, T > 0], of the dtype and device of the weight; `lengths` as `check_lengths`."""
    if not isinstance(x, Tensor):
        raise DtypeError(f"{op}: x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dim() != 3 or x.shape[1] != channels or x.shape[0] == 0 or x.shape[2] == 0:
        raise ShapeError(f"{op}: x: expected [B > 0, {channels}, T > 0], got {list(x.shape)}")
    if x.dtype not in FLOATS or x.dtype != weight.dtype:
        raise DtypeError(f"{op}: x: expected {weight.dtype} like the weights, got {x.dtype}")
    if x.device != weight.device:
        raise DeviceError(f"{op}: x: expected a tensor on {weight.device} like the weights, got {x.device}")
    if lengths is not None:
        check_lengths(op, lengths, x.shape[0], x.shape[2])


def check_lengths(op: str, lengths: Tensor | None, batch: int, frames: int) -> None:
    """`lengths` must be None or [B] int64 on the CPU with values in 1..T."""
    if lengths is None:
        return
    if lengths.shape != (batch,):
        raise ShapeError(f"{op}: lengths: expected [{batch}], got {list(lengths.shape)}")
    if lengths.dtype != torch.int64:
        raise DtypeError(f"{op}: lengths: expected torch.int64, got {lengths.dtype}")
    if lengths.device.type != "cpu":
        raise DeviceError(f"{op}: lengths: expected a tensor on the CPU, got {lengths.device}")
    low, high = shortest(lengths, frames), int(lengths.max())
    if low < 1 or high > frames:
        raise ArgumentError(f"{op}: lengths: expected values in 1..{frames}, got {low}..{high}")


def beside(x: Tensor, sides: tuple[int, int], pad_mode: str) -> Tensor:
    """x [..., T] with so many steps before and after it, of one of the modes that ops know."""
    return F.pad(x, sides, mode="constant" if pad_mode == "zeros" else pad_mode)


def check_pad_mode(op: str, pad_mode: str, known: Sequence[str]) -> None:
    """`pad_mode` must be one of the known ones."""
    if pad_mode not in known:
        raise ArgumentError(f"{op}: pad_mode: expected one of {', '.join(known)}, got {pad_mode!r}")


def check_channel_norm(op: str, weight: Tensor, bias: Tensor, eps: float) -> None:
    """A norm's scale and shift must be [C] both, its `eps` positive."""
    if weight.dim() != 1 or bias.shape != weight.shape:
        shapes = f"{list(weight.shape)} and {list(bias.shape)}"
        raise ShapeError(f"{op}: weight and bias: expected [C] and [C], got {shapes}")
    if not eps > 0:
        raise ArgumentError(f"{op}: eps: expected a positive number, got {eps}")


def check_input_range(op: str, values: Tensor | None, weight: Tensor) -> None:
    """A convolution's `input_range` must be None or float32 [2] on the device of the weight."""
    if values is None:
        return
    if values.shape != (2,):
        raise ShapeError(f"{op}: input_range: expected [2], low and high, got {list(values.shape)}")
    if values.dtype != torch.float32:
        raise DtypeError(f"{op}: input_range: expected torch.float32, got {values.dtype}")
    if values.device != weight.device:
        raise DeviceError(f"{op}: input_range: expected {weight.device} like the weights, got {values.device}")


def check_reflect(op: str, pads: Sequence[int], lengths: Tensor | None, steps: int) -> None:
    """Reflect padding needs more steps than it pads."""
    fewest = shortest(lengths, steps)
    if fewest <= max(pads):
        raise ShapeError(f"{op}: x: reflect padding of {max(pads)} needs more than that many steps, got {fewest}")


def by_item(x: Tensor, lengths: Tensor, steps: int, run: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Runs `run(x of the item, its index)` on each item's valid part alone; zeros fill the results up to `steps`."""
    rows = [run(x[i : i + 1, :, :n], i) for i, n in enumerate(lengths.tolist())]
    return torch.cat([F.pad(row, (0, steps - row.shape[-1])) for row in rows])
