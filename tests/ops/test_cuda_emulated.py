"""The CUDA kernels' sources, compiled as plain C++, against the ops' meaning in float64; and what nvcc makes of them.

No device is needed. What this cannot show is the speed on one, and that the launches of csrc/cuda/ops.cu work there.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from op_cases import CONV1D, MRF, UPSAMPLE, channels, double, mrf_params, strided
from torch import Tensor

from fastvoc.ops.conv1d import OP as CONV1D_OP
from fastvoc.ops.conv1d import conv1d_ref
from fastvoc.ops.mrf import OP as MRF_OP
from fastvoc.ops.mrf import MrfParams, mrf_ref
from fastvoc.ops.upsample import OP as UPSAMPLE_OP
from fastvoc.ops.upsample import upsample_ref
from helpers import ROOT, compiler, relative_l2

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
OPS = {"conv1d": (CONV1D_OP, conv1d_ref), "upsample": (UPSAMPLE_OP, upsample_ref), "mrf": (MRF_OP, mrf_ref)}
# Three layers of one convolution: the only shape that needs both buffers of the block's state.
BLOCKS = {**MRF, "v3-deep": lambda: mrf_params(9, (3, 5), ((1, 2, 3),) * 2, 1)}


def _fused(op: str, params: Any) -> bool:
    """Whether the CUDA kernels fuse the case's activations and know its padding."""
    packed = OPS[op][0].impls["cuda"].pack(params)
    kinds, slopes, _ = packed.acts
    if op == "conv1d":
        return kinds[0] == 0 and kinds[1] < 2 and packed.shape[7] < 2
    return set(kinds) == {0} and len(set(slopes)) == 1 and getattr(packed, "pad_mode", 0) < 2


CASES = [
    pytest.param(op, make, id=f"{op}-{name}")
    for op, table in (("conv1d", CONV1D), ("upsample", UPSAMPLE), ("mrf", BLOCKS))
    for name, make in table.items()
    if _fused(op, make())
]
each_case = pytest.mark.parametrize(("op", "make"), CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("emulation") / "emulation.so"
    here = Path(__file__).parent / "emulation"
    flags = ["-O2", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command = [compiler(), *flags, f"-I{here}", f"-I{ROOT / 'csrc'}", str(here / "emulation.cpp"), "-o", str(target)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def _ints(values: Any) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def _pointer(t: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if t is None else t.data_ptr())


def emulate(
    library: ctypes.CDLL,
    op: str,
    x: Tensor,
    params: Any,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The op by the emulated kernels, which write into memory full of NaN."""
    packed = OPS[op][0].impls["cuda"].pack(params)
    steps = x.shape[2] if op == "mrf" else params.output_length(x.shape[2])
    width = packed.channels if op == "mrf" else packed.shape[0]
    y = torch.full((x.shape[0], steps, width), torch.nan, dtype=x.dtype)
    shared = [DTYPES.index(x.dtype), _pointer(x), _ints(x.stride()), *map(ctypes.c_int64, (x.shape[0], x.shape[2]))]
    shared += [_pointer(lengths), _pointer(packed.weight), _pointer(packed.bias), _pointer(y)]
    if op == "conv1d":
        strides = None if residual is None else _ints(residual.stride())
        slopes = (ctypes.c_double * 2)(*packed.acts.slopes)
        library.conv1d(*shared, _pointer(residual), strides, _ints(packed.shape), slopes, packed.acts.kinds[1])
    elif op == "upsample":
        library.upsample(*shared, _ints(packed.shape), ctypes.c_double(packed.acts.slopes[0]))
    else:
        convs = [ctypes.c_int64(len(packed.kernels)), _ints(packed.kernels), _ints(packed.dilations)]
        blocks = [ctypes.c_int64(len(packed.layers)), _ints(packed.layers), ctypes.c_int64(packed.depth)]
        library.mrf(
            *shared, ctypes.c_int64(width), *convs, *blocks, ctypes.c_double(packed.acts.slopes[0]), packed.pad_mode
        )
    return y.transpose(1, 2)


def _as_dtype(params: Any, dtype: torch.dtype) -> Any:
    if not isinstance(params, MrfParams):
        bias = None if params.bias is None else params.bias.to(dtype)
        return replace(params, weight=params.weight.to(dtype), bias=bias)

    def conv(c: Any) -> Any:
        return replace(c, weight=c.weight.to(dtype), bias=c.bias.to(dtype))

    blocks = tuple(tuple(tuple(map(conv, layer)) for layer in block) for block in params.blocks)
    return replace(params, blocks=blocks)


@each_dtype
@each_case
def test_equals_the_meaning(library: ctypes.CDLL, op: str, make: Callable[[], Any], dtype: torch.dtype) -> None:
    params = _as_dtype(make(), dtype)
    for steps in (29, 131):
        x = torch.randn(2, channels(params), steps).to(dtype)
        y = emulate(library, op, x, params)
        assert relative_l2(y, OPS[op][1](x.double(), double(params))) < ROUNDING[dtype]


def _takes_one_step(op: str, params: Any) -> bool:
    return getattr(params, "pad_mode", "zeros") == "zeros" and (op == "mrf" or params.output_length(1) > 0)


@pytest.mark.parametrize(("op", "make"), [case for case in CASES if _takes_one_step(case.values[0], case.values[1]())])
def test_one_step(library: ctypes.CDLL, op: str, make: Callable[[], Any]) -> None:
    params = make()
    x = torch.randn(1, channels(params), 1)
    assert relative_l2(emulate(library, op, x, params), OPS[op][1](x.double(), double(params))) < 1e-6


@each_case
def test_layout_of_the_input_does_not_matter(library: ctypes.CDLL, op: str, make: Callable[[], Any]) -> None:
    params = make()
    views = strided(torch.randn(2, channels(params), 37))
    first = emulate(library, op, views.pop("channel-major"), params)
    for name, x in views.items():
        assert torch.equal(emulate(library, op, x, params), first), name


@each_case
def test_ragged_batch_equals_single_items(library: ctypes.CDLL, op: str, make: Callable[[], Any]) -> None:
    params = make()
    lengths = torch.tensor([41, 29, 53])
    x = torch.full((3, channels(params), 53), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    batched = emulate(library, op, x, params, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone = emulate(library, op, x[i : i + 1, :, :n], params)
        assert torch.equal(batched[i, :, : alone.shape[2]], alone[0])
        assert not batched[i, :, alone.shape[2] :].any()


def test_residual_comes_before_the_last_activation(library: ctypes.CDLL) -> None:
    params = CONV1D["post-tanh"]()
    x, residual = torch.randn(2, 17, 40), torch.randn(2, 40, 1).transpose(1, 2)
    y = emulate(library, "conv1d", x, params, residual)
    assert relative_l2(y, conv1d_ref(x.double(), double(params), residual.double())) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90, 100, 120])
def test_nvcc_compiles_without_spills(nvcc: str, tmp_path: Path, arch: int) -> None:
    torch_headers = Path(torch.__file__).parent / "include"
    command = [
        nvcc,
        "-ccbin",
        compiler(),
        "-O3",
        "-std=c++20",
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        "-DUSE_CUDA",
    ]
    command += ["--expt-relaxed-constexpr", "-Werror=all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}", "-Xptxas", "-v", "-isystem", str(torch_headers)]
    command += ["-I", str(ROOT / "csrc"), "-c", str(ROOT / "csrc/cuda/ops.cu"), "-o", str(tmp_path / "ops.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert len(spills) >= 13, "fewer kernels than number types and ops call for"
    assert set(spills) == {("0", "0", "0")}
