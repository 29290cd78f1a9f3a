"""How every op registers its CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops._triton import DeviceStream, in_chunks, rows_on
from fastvoc.ops.activation import Activation
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.registry import Impl, Op, Spec

_TILE_ROWS = 1100  # of 80 bytes, with 12 KB for weights, in 99 KB


def _accept(_: Spec) -> str | None:
    return None


def _dtype(spec: Spec) -> torch.dtype:
    return spec.dtype


def register_cuda(
    op: Op,
    run: Callable[..., Tensor],
    pack: Callable[[Any], Any],
    supports: Callable[[Spec], str | None] = _accept,
    dtype: Callable[[Spec], torch.dtype] = _dtype,
    priority: int = -10,
    stream: DeviceStream | None = None,
) -> None:
    """Adds implementation `cuda`, below torch unless `priority` says otherwise: not yet run on a device.

    It computes in the dtype `dtype(spec)`, that of the activations unless told. `stream` makes the form for chunks.
    """

    def verdict(spec: Spec) -> str | None:
        return _library.cuda_refusal(dtype(spec)) or supports(spec)

    streamed = in_chunks(stream, run, lambda params: rows_on(params.tensors()))
    op.register(Impl("cuda", run, frozenset({"cuda"}), priority, pack=pack, supports=verdict, stream=streamed))


def pack_cuda_activations(acts: Sequence[Activation], multiple: int = packing.PANEL) -> packing.Activations:
    """Activations as the CUDA kernels take them: the curves of snakes in float32 whatever the dtype."""
    packed = packing.pack_activations(acts, multiple)
    return packed._replace(curves=None if packed.curves is None else packed.curves.float())


def fits_conv_tile(dtype: torch.dtype, cin: int, cout: int, input_rows: int) -> bool:
    """Whether csrc/cuda/conv_tile.cuh computes a convolution that reads so many steps for 128 outputs.

    Few channels leave tensor cores idle; shared memory is that of the smallest device.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    return half and min(cin, cout) >= packing.PANEL and input_rows <= _TILE_ROWS
