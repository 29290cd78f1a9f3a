"""Launches Triton kernels, and records what was launched for tests and for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import triton

from fastvoc.kernels.lengths import no_lengths

# Whole numbers that change from call to call, and what lies in rows of one buffer: code that knew that they are 1, or
# multiples of 16, would be no faster, and each combination would be compiled again in the middle of a user's call.
_COUNTS = (
    "steps",
    "made",
    "offset",
    "crop",
    "mirror",
    "ragged",
    "tiles",
    "ring",
    "count",
    "x_items",
    "held",
    "before",
    "low",
    "high",
    "keep",
    "have",
    "held_x",
    "held_y",
    "more_x",
    "more_y",
    "residual_items",
)
_ROWS = ("lengths", "row", "frames", "seeds", "phase", "place", "state", "after")
# Between channels of a signal that is not time-major lie its steps, of which any number may come.
_STEPS_APART = (
    "x_channel",
    "residual_channel",
    "y_channel",
    "noise_channel",
    "noise_batch",
    "f0_batch",
    "codes_book",
    "codes_batch",
)


def kernel(function: Any) -> Any:
    """`triton.jit` for kernels that `launch` runs."""
    return triton.jit(function, do_not_specialize=_COUNTS, do_not_specialize_on_alignment=_ROWS + _STEPS_APART)


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, its grid, its arguments by name, and the compiler's options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self.kernel.__name__)


@dataclass
class Recording:
    """The launches inside a `record` block, in order; `dry` when they were recorded instead of run."""

    dry: bool
    launches: list[Launch] = field(default_factory=list)


_recording: ContextVar[Recording | None] = ContextVar("fastvoc_launches", default=None)


@contextmanager
def record(dry: bool = False) -> Iterator[Recording]:
    """Records every launch; with `dry` nothing runs, and what the kernels would write holds no values."""
    token = _recording.set(Recording(dry))
    try:
        recording = _recording.get()
        assert recording is not None
        yield recording
    finally:
        _recording.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], config: dict[str, int], device: torch.device, **arguments: Any) -> None:
    """Runs a kernel on the current stream of `device`.

    `config` holds the tuned values: num_warps and num_stages for the compiler, the others are arguments. A kernel that
    takes `lengths` also takes `ragged`, which is 0 where they are None.
    """
    if "lengths" in arguments:
        arguments["ragged"] = int(arguments["lengths"] is not None)
        if arguments["lengths"] is None:
            arguments["lengths"] = no_lengths(device)
    options = {name: value for name, value in config.items() if name.startswith("num_")}
    arguments |= {name: value for name, value in config.items() if name not in options}
    recording = _recording.get()
    if recording is not None or interpreting():
        _check_names(kernel, arguments)
    if recording is not None:
        recording.launches.append(Launch(kernel, grid, arguments, options))
        if recording.dry:
            return
    there = device.type == "cuda" and device.index not in (None, torch.cuda.current_device())
    with torch.cuda.device(device) if there else nullcontext():
        # The default of contracting multiplications and additions differs between versions of Triton.
        kernel[grid](**arguments, **options, enable_fp_fusion=True)


def _check_names(kernel: Any, arguments: dict[str, Any]) -> None:
    """Raises TypeError where a GPU would refuse the arguments, which Triton's interpreter does not."""
    odd = set(arguments) ^ set(kernel.arg_names)
    if odd:
        raise TypeError(f"{kernel.__name__}: arguments missing or unknown: {', '.join(sorted(odd))}")


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def strides(x: torch.Tensor | None, prefix: str, axes: int = 3) -> dict[str, int]:
    """The strides of [B, C, T] or [B, C, T, F] as the arguments <prefix>_batch, _channel, _step and _band.

    They are 0 where there is no tensor.
    """
    names = (f"{prefix}_batch", f"{prefix}_channel", f"{prefix}_step", f"{prefix}_band")
    return dict(zip(names[:axes], (0,) * axes if x is None else x.stride(), strict=True))


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return bool(triton.knobs.runtime.interpret)
