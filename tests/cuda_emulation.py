"""The CUDA kernels' own sources as CPU functions: compiled as plain C++ and called as the native ops are."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops import mrf as mrf_op
from fastvoc.runtime.registry import OPS, Impl
from helpers import ROOT, compiler

FOLDER = ROOT / "tests/ops/emulation"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SANITIZERS = "FASTVOC_EMULATION_SANITIZERS"  # variable: what the kernels are compiled with, such as address,undefined
SHARED_LIMITS = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_120": 99 * 1024}


def build(source: str, target: Path, *flags: str) -> Path:
    """Compiles one file of tests/ops/emulation into the library `target`."""
    command = [
        compiler(),
        "-O2",
        "-std=c++20",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-shared",
        "-fPIC",
    ]
    command += [*flags, f"-I{FOLDER}", f"-I{ROOT / 'csrc'}", str(FOLDER / source), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


@cache
def library(source: str) -> ctypes.CDLL:
    """The functions of one file, built once a session."""
    sanitizers = os.environ.get(SANITIZERS)
    flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-g"] if sanitizers else []
    return ctypes.CDLL(str(build(source, Path(mkdtemp()) / "emulation.so", *flags)))


def set_device(functions: ctypes.CDLL, shared: int = SHARED_LIMITS["sm_90"], backwards: bool = False) -> None:
    """How much shared memory a block may have, and whether a block's threads run last first."""
    functions.set_device(shared, int(backwards))


def ints(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def doubles(values: Sequence[float]) -> Any:
    return (ctypes.c_double * len(values))(*values)


def pointer(t: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if t is None else t.data_ptr())


def poisoned(batch: int, channels: int, steps: int, dtype: torch.dtype) -> Tensor:
    """Time-major [B, T, C] memory full of NaN."""
    return torch.full((batch, steps, channels), torch.nan, dtype=dtype)


def sizes(x: Tensor) -> tuple[Any, Any]:
    """Items and steps of a [B, C, T] tensor."""
    return ctypes.c_int64(x.shape[0]), ctypes.c_int64(x.shape[2])


def _head(x: Tensor, packed: Any, lengths: Tensor | None, y: Tensor | None) -> list[Any]:
    shared = [DTYPES.index(x.dtype), pointer(x), ints(x.stride()), *sizes(x)]
    return [*shared, pointer(lengths), pointer(packed.weight), pointer(packed.bias), pointer(y)]


def _acts(packed: Any) -> list[Any]:
    kinds, slopes, curves = packed.acts
    return [ints(kinds), doubles(slopes), pointer(curves)]


def conv1d(x: Tensor, packed: Any, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    cout, _, kernel, stride, dilation, left, right = packed.shape[:7]
    y = poisoned(x.shape[0], cout, (x.shape[2] + left + right - dilation * (kernel - 1) - 1) // stride + 1, x.dtype)
    strides = None if residual is None else ints(residual.stride())
    further = [pointer(residual), strides, ints(packed.shape), *_acts(packed)]
    library("convolutions.cpp").conv1d(*_head(x, packed, lengths, y), *further)
    return y.transpose(1, 2)


def upsample(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
    cout, _, kernel, stride, left, right = packed.shape[:6]
    y = poisoned(x.shape[0], cout, (x.shape[2] - 1) * stride + kernel - left - right, x.dtype)
    library("convolutions.cpp").upsample(*_head(x, packed, lengths, y), ints(packed.shape), *_acts(packed))
    return y.transpose(1, 2)


def _call_mrf(x: Tensor, packed: Any, lengths: Tensor | None, y: Tensor | None) -> bool:
    convs = [ctypes.c_int64(len(packed.kernels)), ints(packed.kernels), ints(packed.dilations)]
    blocks = [ctypes.c_int64(len(packed.layers)), ints(packed.layers)]
    shape = [ctypes.c_int64(packed.depth), ctypes.c_int64(packed.pad_mode)]
    head = _head(x, packed, lengths, y)
    tiles = int(packed.schemes[0] == -1)
    call = library("convolutions.cpp").mrf
    return bool(call(*head, ctypes.c_int64(packed.channels), *convs, *blocks, *shape, *_acts(packed), tiles))


def mrf(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(x.shape[0], packed.channels, x.shape[2], x.dtype)
    _call_mrf(x, packed, lengths, y)
    return y.transpose(1, 2)


def pack_mrf(params: Any, tiles: bool | None = None) -> Any:
    """The weights as the device would have them; `tiles` asks for tensor cores or against them."""
    plain = mrf_op._pack_plain(params)
    weight = params.convs()[0].weight
    if tiles is None:
        tiles = weight.dtype != torch.float32 and _call_mrf(weight, plain, None, None)
    return mrf_op.pack_tiles(params, plain) if tiles else plain


def rvq_decode(codes: Tensor, books: Tensor, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(codes.shape[0], books.shape[2], codes.shape[2], books.dtype)
    head = [DTYPES.index(books.dtype), pointer(codes), ints(codes.stride()), *sizes(codes), pointer(lengths)]
    library("sources.cpp").rvq_decode(*head, pointer(books), pointer(y), ints([codes.shape[1], *books.shape[1:]]))
    return y.transpose(1, 2)


def rvq_encode(x: Tensor, packed: Any, n_q: int, lengths: Tensor | None = None) -> Tensor:
    codes = torch.full((x.shape[0], n_q, x.shape[2]), -1)
    tensors = [pointer(t) for t in (lengths, packed.books, packed.panels, packed.squares, codes)]
    shape = ints([n_q, *packed.books.shape[1:]])
    library("sources.cpp").rvq_encode(pointer(x), ints(x.stride()), *sizes(x), *tensors, shape)
    return codes


def stft(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
    size, hop, left, right = packed.shape[:4]
    y = poisoned(x.shape[0], size + 2, (x.shape[2] + left + right - size) // hop + 1, x.dtype)
    head = [DTYPES.index(x.dtype), pointer(x), ints(x.stride()), *sizes(x), pointer(lengths)]
    library("sources.cpp").stft(*head, pointer(packed.tables), pointer(y), ints(packed.shape))
    return y.transpose(1, 2)


def _rows(x: Tensor, lengths: Tensor | None) -> list[Any]:
    return [DTYPES.index(x.dtype), pointer(x), ints(x.stride()), *sizes(x), pointer(lengths)]


def layer_norm(x: Tensor, packed: Any, row: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(*x.shape, x.dtype)
    tensors = [pointer(t) for t in (packed.weight, packed.bias, row, y)]
    eps = ctypes.c_double(packed.eps)
    library("blocks.cpp").layer_norm(*_rows(x, lengths), *tensors, ctypes.c_int64(x.shape[1]), eps)
    return y.transpose(1, 2)


def convnext_block(x: Tensor, packed: Any, row: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(*x.shape, x.dtype)
    norm = [pointer(t) for t in (packed.depthwise, packed.norm_weight, packed.norm_bias)]
    weights = [pointer(packed.weight), ctypes.c_int64(packed.weight.numel())]
    biases = [pointer(t) for t in (packed.expand_bias, packed.project_bias)]
    further = [pointer(row), pointer(y), ints(packed.shape), ctypes.c_double(packed.eps)]
    library("blocks.cpp").convnext_block(*_rows(x, lengths), *norm, *weights, *biases, *further)
    return y.transpose(1, 2)


def group_norm_act(x: Tensor, packed: Any, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(*x.shape, x.dtype)
    norm = [pointer(packed.weight), pointer(packed.bias), ctypes.c_double(packed.eps)]
    beside = [pointer(residual), None if residual is None else ints(residual.stride())]
    further = [pointer(y), ctypes.c_int64(x.shape[1]), *_acts(packed)]
    library("blocks.cpp").group_norm_act(*_rows(x, lengths), *norm, *beside, *further)
    return y.transpose(1, 2)


def adain(x: Tensor, packed: Any, style: Tensor, lengths: Tensor | None = None) -> Tensor:
    y, style = poisoned(*x.shape, x.dtype), style.float()
    tensors = [pointer(t) for t in (packed.weight, packed.bias, style)]
    further = [ints(style.stride()), ctypes.c_double(packed.eps), pointer(y), ctypes.c_int64(x.shape[1])]
    library("blocks.cpp").adain(*_rows(x, lengths), *tensors, *further, *_acts(packed))
    return y.transpose(1, 2)


def seanet_block(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(x.shape[0], packed.shape[2], x.shape[2], x.dtype)
    first = [pointer(packed.weight1), pointer(packed.bias1)]
    second = [pointer(packed.weight2), ctypes.c_int64(packed.weight2.numel()), pointer(packed.bias2)]
    norms = [pointer(t) for t in (packed.shortcut, packed.bias_shortcut, packed.norms)]
    further = [doubles(packed.eps), pointer(y), ints(packed.shape), *_acts(packed)]
    library("blocks.cpp").seanet_block(*_rows(x, lengths), *first, *second, *norms, *further)
    return y.transpose(1, 2)


def istft_head(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
    size, hop, left, right, _, wide = packed.shape
    samples = (x.shape[2] - 1) * hop + size - left - right
    y = poisoned(x.shape[0], 1, samples, torch.float32 if wide else x.dtype)
    head = [DTYPES.index(x.dtype), pointer(x), ints(x.stride()), *sizes(x), pointer(lengths)]
    library("sources.cpp").istft_head(
        *head, pointer(packed.tables), pointer(y), ints(packed.shape), doubles(packed.bounds)
    )
    return y.transpose(1, 2)


def nsf_source(
    f0: Tensor,
    packed: Any,
    state: Tensor | None = None,
    phase: Tensor | None = None,
    seed: Tensor | None = None,
    noise: Tensor | None = None,
    lengths: Tensor | None = None,
    frames: Tensor | None = None,
) -> Tensor:
    y = poisoned(f0.shape[0], 1, f0.shape[2] * packed.shape[1], f0.dtype)
    head = [DTYPES.index(f0.dtype), pointer(f0), ints(f0.stride()), *sizes(f0), pointer(lengths), pointer(frames)]
    given = [t if t is None else t.contiguous() for t in (phase, seed, noise)]
    weights = [pointer(packed.weight), pointer(packed.bias), pointer(state), *map(pointer, given), pointer(y)]
    rows = ctypes.c_int64(len(packed.weight))
    library("sources.cpp").nsf_source(*head, *weights, rows, ints(packed.shape), doubles(packed.levels))
    return y.transpose(1, 2)


def lstm(
    x: Tensor, packed: Any, lengths: Tensor | None = None, h: Tensor | None = None, c: Tensor | None = None
) -> Tensor:
    y = poisoned(x.shape[0], packed.shape[2] * packed.shape[3], x.shape[2], x.dtype)
    head = [DTYPES.index(x.dtype), pointer(x), ints(x.stride()), *sizes(x), pointer(lengths)]
    weights = [pointer(packed.weight), pointer(packed.bias), pointer(h), pointer(c)]
    assert library("recurrent.cpp").lstm(*head, *weights, pointer(y), ints(packed.shape)), "too many units"
    return y.transpose(1, 2)


def snake_aa(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
    y = poisoned(*x.shape, x.dtype)
    tensors = [pointer(t) for t in (packed.alpha, packed.inverse, packed.taps, y)]
    library("filters.cpp").snake_aa(*_rows(x, lengths), *tensors, ctypes.c_int64(x.shape[1]))
    return y.transpose(1, 2)


def lvc(
    x: Tensor,
    params: Any,
    kernels: Tensor,
    biases: Tensor,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    batch, _, cin, cout, frames = kernels.shape
    y = poisoned(batch, cout // 2 if params.gated else cout, x.shape[2], x.dtype)
    head = [DTYPES.index(x.dtype), pointer(x), ints(x.stride()), ctypes.c_int64(batch), pointer(lengths)]
    given = [pointer(kernels), ints(kernels.stride()), pointer(biases), ints(biases.stride())]
    beside = [pointer(residual), None if residual is None else ints(residual.stride())]
    shape = ints([params.taps, cin, cout, frames, params.hop, int(params.gated)])
    library("filters.cpp").lvc(*head, *given, *beside, pointer(y), shape)
    return y.transpose(1, 2)


def conv2d(x: Tensor, packed: Any, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    cout, bands = packed.shape[0], x.shape[3]
    made = bands // packed.pool
    rows = x.permute(0, 2, 3, 1).flatten(2).transpose(1, 2)
    added = None if residual is None else residual.permute(0, 2, 3, 1).flatten(2).transpose(1, 2)
    y = poisoned(x.shape[0], made * cout, x.shape[2], x.dtype)
    beside = [pointer(added), None if added is None else ints(added.stride())]
    further = [pointer(y), ints([*packed.shape, bands, packed.pool]), ctypes.c_double(packed.slope)]
    library("filters.cpp").conv2d(
        *_rows(rows, lengths), pointer(packed.weight), pointer(packed.bias), *beside, *further
    )
    return y.unflatten(2, (made, cout)).permute(0, 3, 1, 2)


RUN: dict[str, Callable[..., Tensor]] = {
    "adain": adain,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "convnext_block": convnext_block,
    "group_norm_act": group_norm_act,
    "istft_head": istft_head,
    "layer_norm": layer_norm,
    "lstm": lstm,
    "lvc": lvc,
    "mrf": mrf,
    "nsf_source": nsf_source,
    "rvq_decode": rvq_decode,
    "rvq_encode": rvq_encode,
    "seanet_block": seanet_block,
    "snake_aa": snake_aa,
    "square_conv": conv1d,
    "stft": stft,
    "upsample": upsample,
}


@contextmanager
def dry_launches() -> Iterator[Callable[[], int]]:
    """Inside a `with` block the kernels are not run, and outputs stay NaN; the yielded function counts the launches."""
    functions = [library(source.name) for source in sorted(FOLDER.glob("*.cpp"))]

    def count() -> int:
        return sum(int(f.count_launches(1)) for f in functions)

    count()
    try:
        yield count
    finally:
        for f in functions:
            f.count_launches(0)


@contextmanager
def emulated() -> Iterator[None]:
    """Inside a `with` block, backend `cuda` runs the emulated kernels on the CPU."""
    for name in RUN:
        import_module(f"fastvoc.ops.{name}")
    kept = {name: OPS[name].impls["cuda"] for name in RUN}
    try:
        for name, run in RUN.items():
            pack = pack_mrf if name == "mrf" else kept[name].pack
            OPS[name].impls["cuda"] = Impl("cuda", run, frozenset({"cpu"}), priority=-10, pack=pack)
        yield
    finally:
        for name, impl in kept.items():
            OPS[name].impls["cuda"] = impl
