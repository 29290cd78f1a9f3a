"""The CUDA convolutions' sources, compiled as plain C++, against the ops' meaning in float64.

No device is needed. What this cannot show is the speed on one, and that the launches of csrc/cuda/*.cu work there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cuda_emulation import DTYPES, RUN, SHARED_LIMITS, dry_launches, pack_mrf, set_device
from op_cases import (
    CONV1D,
    MRF,
    cast,
    channels,
    conv1d_params,
    double,
    mrf_params,
    upsample_params,
    with_snakes,
)
from torch import Tensor

from fastvoc.ops.activation import elu
from fastvoc.ops.conv1d import OP as CONV1D_OP
from fastvoc.ops.conv1d import conv1d_ref
from fastvoc.ops.mrf import mrf_ref
from fastvoc.ops.upsample import OP as UPSAMPLE_OP
from fastvoc.ops.upsample import upsample_ref
from helpers import relative_l2

ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
MEANING: dict[str, Callable[..., Tensor]] = {"conv1d": conv1d_ref, "upsample": upsample_ref, "mrf": mrf_ref}

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def device() -> None:
    set_device()


def emulate(op: str, x: Tensor, params: Any, *args: Tensor | None) -> Tensor:
    """The op by the emulated kernels, which write into memory full of NaN."""
    if op == "mrf":
        return RUN[op](x, pack_mrf(params), *args)
    return RUN[op](x, {"conv1d": CONV1D_OP, "upsample": UPSAMPLE_OP}[op].impls["cuda"].pack(params), *args)


def test_residual_comes_before_the_last_activation() -> None:
    params = CONV1D["post-tanh"]()
    x, residual = torch.randn(2, 17, 40), torch.randn(2, 40, 1).transpose(1, 2)
    y = emulate("conv1d", x, params, residual)
    assert relative_l2(y, conv1d_ref(x.double(), double(params), residual.double())) < 1e-6


# Widths of 16 to 256, whole blocks and single layers in a launch, more than one tile along time.
TILES = {
    "16": (lambda: mrf_params(9, (3, 11), ((1, 3, 5),) * 2, 2), 700),
    "32": (lambda: mrf_params(32, (3, 7), ((1, 3, 5),) * 2, 2), 1100),
    "64": (lambda: mrf_params(50, (3, 11), ((1, 3, 5), (1, 5)), 2), 400),
    "64-one-conv": (lambda: mrf_params(64, (3, 5), ((1, 2), (2, 6)), 1), 300),
    "64-far": (lambda: mrf_params(34, (11,), ((9, 7, 5),), 2), 300),
    "128": (lambda: mrf_params(128, (7, 3), ((1, 3), (1,)), 2), 260),
    "128-deep": (lambda: mrf_params(128, (3, 7), ((1, 3, 7), (3, 12)), 1), 280),
    "256": (lambda: mrf_params(131, (3, 5), ((1, 5), (2,)), 2), 135),
    "nine-blocks": (lambda: mrf_params(12, (3,) * 9, ((1,),) * 9, 1), 600),
    "snake": (lambda: with_snakes(mrf_params(40, (3, 7), ((1, 3, 5),) * 2, 2)), 290),
    "128-snake": (lambda: with_snakes(mrf_params(100, (3, 7), ((1, 3, 5), (1, 3)), 2)), 300),
    "causal-128": (lambda: mrf_params(70, (3,), ((1, 3, 5),), 2, "causal"), 270),
    "causal": (lambda: mrf_params(21, (3, 7), ((1, 3, 5),) * 2, 2, "causal"), 600),
}


@pytest.mark.parametrize("name", TILES)
def test_tiles_for_tensor_cores(name: str) -> None:
    make, steps = TILES[name]
    params = cast(make(), torch.bfloat16)
    packed = pack_mrf(params, tiles=True)
    lengths = torch.tensor([steps, steps // 2 + 3, 5])
    x = torch.full((3, packed.channels, steps), torch.nan, dtype=torch.bfloat16)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(packed.channels, n)
    y = RUN["mrf"](x, packed, lengths)
    assert relative_l2(y, mrf_ref(x.double(), double(params), lengths)) < ROUNDING[torch.bfloat16]
    for i, n in enumerate(lengths.tolist()[1:], 1):
        assert torch.equal(RUN["mrf"](x[i : i + 1, :, :n], packed)[0], y[i, :, :n])


@pytest.mark.parametrize(
    ("name", "large", "small"), [("16", 1, 1), ("64", 1, 1), ("128-deep", 3, 4), ("256", 2, 2), ("nine-blocks", 9, 9)]
)
def test_launches_do_not_change_the_bits(name: str, large: int, small: int) -> None:
    """A whole stage, blocks, groups of layers or single ones in a launch, by the device's shared memory."""
    params = cast(TILES[name][0](), torch.bfloat16)
    x = torch.randn(1, channels(params), 200).bfloat16()
    outputs = []
    for arch, launches in (("sm_90", large), ("sm_120", small)):
        set_device(shared=SHARED_LIMITS[arch])
        with dry_launches() as count:
            RUN["mrf"](x, pack_mrf(params))
            assert count() == launches
        outputs.append(RUN["mrf"](x, pack_mrf(params)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("arch", ["sm_80", "sm_120"])
@pytest.mark.parametrize("name", ["32", "64", "64-far", "128", "128-deep", "256"])
def test_smaller_shared_memory(name: str, arch: str) -> None:
    params = cast(TILES[name][0](), torch.float16)
    set_device(shared=SHARED_LIMITS[arch])
    assert pack_mrf(params).schemes[0] == -1
    x = torch.randn(1, channels(params), 90).half()
    y = RUN["mrf"](x, pack_mrf(params))
    assert relative_l2(y, mrf_ref(x.double(), double(params))) < ROUNDING[torch.float16]


@pytest.mark.parametrize("name", ["16", "64", "128", "snake"])
def test_order_of_threads_does_not_matter(name: str) -> None:
    params = cast(TILES[name][0](), torch.float16)
    x = torch.randn(1, channels(params), 150).half()
    forwards = RUN["mrf"](x, pack_mrf(params, tiles=True))
    set_device(backwards=True)
    assert torch.equal(RUN["mrf"](x, pack_mrf(params, tiles=True)), forwards)


def test_tiles_refuse_what_they_do_not_compute() -> None:
    for name in ("reflect", "elu"):
        assert pack_mrf(cast(MRF[name](), torch.bfloat16)).schemes[0] == 0
    assert pack_mrf(mrf_params(257, (3,), ((1,),), 1)).schemes[0] == 0


# More than one block of 64 outputs, of 32 inputs and of 128 steps; phases that share a block or straddle two.
CONV_TILES = {
    "wide": ("conv1d", lambda: replace(conv1d_params(70, 130, 5, dilation=2, pad=(3, 4)), pre=elu()), 300),
    "one-tap": ("conv1d", lambda: conv1d_params(33, 64, 1, pad=(0, 0)), 140),
    "stride": ("conv1d", lambda: replace(conv1d_params(40, 65, 16, stride=8, pad=(8, 3)), pad_mode="reflect"), 1300),
    "replicate": ("conv1d", lambda: replace(conv1d_params(16, 16, 9, pad=(40, 70)), pad_mode="replicate"), 90),
    "reflect": ("conv1d", lambda: replace(conv1d_params(20, 30, 7, pad=(11, 13)), pad_mode="reflect"), 17),
    "k16-s8": ("upsample", lambda: upsample_params(48, 24, 16, 8, (4, 4)), 150),
    "k11-s5": ("upsample", lambda: upsample_params(33, 17, 11, 5, (3, 3)), 60),
    "trim": ("upsample", lambda: upsample_params(16, 40, 4, 2, (0, 2)), 140),
}


@pytest.mark.parametrize("name", CONV_TILES)
def test_convolutions_on_tensor_cores(name: str) -> None:
    op, make, steps = CONV_TILES[name]
    params = cast(make(), torch.float16)
    packed = {"conv1d": CONV1D_OP, "upsample": UPSAMPLE_OP}[op].impls["cuda"].pack(params)
    assert packed.tiles
    lengths = torch.tensor([steps, max(steps // 2, 14), steps - 1])
    x = torch.full((3, channels(params), steps), torch.nan, dtype=torch.float16)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    args = (lengths,) if op == "upsample" else (None, lengths)
    y = RUN[op](x, packed, *args)
    assert relative_l2(y, MEANING[op](x.double(), double(params), *args)) < ROUNDING[torch.float16]
    for i, n in enumerate(lengths.tolist()):
        alone = RUN[op](x[i : i + 1, :, :n], packed)
        assert torch.equal(alone[0], y[i, :, : alone.shape[2]])
