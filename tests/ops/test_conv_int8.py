"""The convolutions on whole numbers: what the reference means, and that the kernels sum the same integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from op_cases import CONV1D, INT8_MRF, MRF, UPSAMPLE, cast, channels, conv1d_params, mrf_params, strided, with_ranges
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, BackendError, DtypeError, ShapeError
from fastvoc.ops.activation import leaky_relu
from fastvoc.ops.conv1d import Conv1dParams, conv1d, conv1d_ref
from fastvoc.ops.mrf import mrf
from fastvoc.ops.upsample import UpsampleParams, upsample, upsample_ref
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.registry import OPS
from helpers import batches_with, relative_l2, run_under

TABLES = (("conv1d", CONV1D), ("upsample", UPSAMPLE), ("mrf", INT8_MRF))
CASES = [pytest.param(op, make, id=f"{op}-{name}") for op, table in TABLES for name, make in table.items()]
each_case = pytest.mark.parametrize(("op", "make"), CASES)


def nearest_byte(value: float, low: float, high: float) -> int:
    """The byte of a value, by the definition."""
    step = torch.tensor((high - low) / 255).item()
    return min(max(round(value / step) + round(-low / step), 0), 255)


def test_bytes_are_the_nearest_of_256_steps() -> None:
    grid = packing.ByteGrid.over(torch.tensor([-0.5, 2.0]))
    x = torch.linspace(-1, 3.01, 401)  # no ties
    bytes_ = grid.centred(x) + grid.zero
    assert bytes_.tolist() == [nearest_byte(v, -0.5, 2.0) for v in x.tolist()]
    assert grid.zero == 51
    assert grid.centred(torch.zeros(1)).item() == 0


@pytest.mark.parametrize(("low", "high", "zero"), [(0.5, 2.0, 0), (-2.0, -1.0, 255), (0.0, 0.0, 0), (-1.0, 0.0, 255)])
def test_a_range_is_widened_to_hold_zero(low: float, high: float, zero: int) -> None:
    grid = packing.ByteGrid.over(torch.tensor([low, high]))
    assert grid.zero == zero
    assert grid.centred(torch.zeros(3)).abs().max() == 0


@pytest.mark.parametrize("values", [(1.0, -1.0), (0.0, torch.nan), (-torch.inf, 1.0)])
def test_a_range_must_be_one(values: tuple[float, float]) -> None:
    with pytest.raises(ArgumentError, match="input_range: expected finite values low <= high"):
        packing.ByteGrid.over(torch.tensor(values))


def test_ranges_of_other_shapes_and_dtypes_are_named() -> None:
    params = conv1d_params()
    with pytest.raises(ShapeError, match=r"conv1d: input_range: expected \[2\]"):
        replace(params, input_range=torch.zeros(3))
    with pytest.raises(DtypeError, match=r"conv1d: input_range: expected torch\.float32"):
        replace(params, input_range=torch.zeros(2, dtype=torch.float64))
    conv = MRF["one-block"]().convs()[0]
    with pytest.raises(ShapeError, match=r"mrf: input_range: expected \[2\]"):
        replace(MRF["one-block"](), blocks=((((replace(conv, input_range=torch.zeros(1))),),),))


def test_weights_use_all_of_their_range() -> None:
    weight = torch.randn(6, 4, 3)
    weight[2] = 0
    whole, step = packing.quantise_weight(weight)
    assert torch.equal(whole, whole.round())
    assert (whole.abs().amax((1, 2)) == torch.tensor([127, 127, 0, 127, 127, 127])).all()
    assert (whole * step[:, None, None] - weight).abs().max() <= step.max() / 2
    turned, turned_step = packing.quantise_weight(weight.transpose(0, 1).contiguous(), 1)
    assert torch.equal(turned.transpose(0, 1), whole)
    assert torch.equal(turned_step, step)


def test_the_reference_sums_integers() -> None:
    """Against loops over Python's own integers."""
    params = Conv1dParams(torch.randn(3, 2, 3), torch.randn(3), 1, 2, (2, 2), pre=leaky_relu(0.1))
    x = torch.randn(1, 2, 9)
    y = conv1d_ref(x, replace(params, input_range=torch.tensor([-0.3, 1.5])))
    step = torch.tensor(1.8 / 255).item()
    zero = round(0.3 / step)
    act = F.leaky_relu(x[0], 0.1).tolist()
    for co in range(3):
        w_step = params.weight[co].abs().max().item() / 127
        for t in range(9):
            total = 0
            for ci in range(2):
                for k in range(3):
                    s = t + 2 * k - 2
                    byte = nearest_byte(act[ci][s], -0.3, 1.5) if 0 <= s < 9 else zero
                    total += round(params.weight[co, ci, k].item() / w_step) * (byte - zero)
            expected = total * step * w_step + params.bias[co].item()
            assert y[0, co, t].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_transposed_convolution_is_the_convolution_of_its_flipped_weights() -> None:
    weight, span = torch.randn(5, 4, 6), torch.tensor([-1.0, 2.0])
    x = torch.randn(2, 5, 11)
    ours = upsample_ref(x, UpsampleParams(weight, None, 1, input_range=span))
    flipped = Conv1dParams(weight.transpose(0, 1).flip(2).contiguous(), None, padding=(5, 5), input_range=span)
    assert torch.equal(ours, conv1d_ref(x, flipped))


@pytest.mark.native
@each_case
def test_kernels_equal_the_reference(op: str, make: Callable[[], Any], nan_poison: None) -> None:
    """Up to the rounding of the last float32 steps; an activation that ends there may move a value to the next byte."""
    call = OPS[op]
    for steps in (97, 400, 1003):
        params = make()
        x = torch.randn(2, channels(params), steps)
        params = with_ranges(params, x)
        y, meant = call(x, params, backend="cpp"), call.reference(x, params)
        assert relative_l2(y, meant) < (3e-3 if op == "mrf" else 1e-3 if curved(params) else 1e-6), steps


def curved(params: Any) -> bool:
    """Whether what becomes bytes went through a function that may differ in the last bit."""
    return params.pre.kind not in ("identity", "leaky_relu")


def test_depthwise_convolutions_take_no_range() -> None:
    conv = MRF["depthwise"]().convs()[0]
    with pytest.raises(ArgumentError, match="mrf: input_range: a depthwise convolution multiplies no whole numbers"):
        replace(MRF["depthwise"](), blocks=(((replace(conv, input_range=torch.tensor([-1.0, 1.0])),),),))


@pytest.mark.native
@pytest.mark.parametrize("op", ["conv1d", "upsample"])
def test_integers_are_identical(op: str) -> None:
    """With a step of 1 and weights that are whole, every sum is whole too, and float32 holds it."""
    weight = torch.randint(-127, 128, (40, 40, 7)).float()
    weight[:, 0, 0] = weight[0, :, 0] = 127
    x, span = torch.randint(-90, 166, (2, 40, 333)).float(), torch.tensor([-90.0, 165.0])
    if op == "conv1d":
        y = conv1d(x, Conv1dParams(weight, None, 2, 3, (9, 4), input_range=span), backend="cpp")
        expected = F.conv1d(F.pad(x.double(), (9, 4)), weight.double(), None, 2, 0, 3)
    else:
        y = upsample(x, UpsampleParams(weight, None, 3, (2, 1), input_range=span), backend="cpp")
        expected = F.conv_transpose1d(x.double(), weight.double(), None, 3)[:, :, 2:-1]
    assert torch.equal(y.double(), expected)


@pytest.mark.native
@each_case
def test_ragged_batches_threads_and_layout_do_not_change_a_bit(
    op: str, make: Callable[[], Any], nan_poison: None
) -> None:
    call, params = OPS[op], make()
    x = torch.randn(1, channels(params), 777)
    params = with_ranges(params, x)
    results = [
        call(stacked, params, backend="cpp")[i]
        for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 4, 1), (2, 8, 7)))
    ]
    results += [call(view, params, backend="cpp")[0] for view in strided(x).values()]
    longer = torch.full((1, channels(params), 900), torch.nan)
    longer[:, :, :777] = x
    ragged = call(longer, params, *([None] if op == "conv1d" else []), torch.tensor([777]), backend="cpp")[0]
    results.append(ragged[:, : results[0].shape[1]])
    assert not ragged[:, results[0].shape[1] :].any()
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
@each_case
def test_chunks_equal_the_whole(op: str, make: Callable[[], Any], nan_poison: None) -> None:
    impl, params = OPS[op].impls["cpp"], make()
    x = torch.randn(2, channels(params), 400)
    params = with_ranges(params, x)
    packed = impl.packed(params, exact=True)
    whole = OPS[op](x, params, backend="cpp")
    for cuts in ([], [1, 2, 150, 151, 390], list(range(7, 400, 7))):
        stream = impl.stream(params, packed)  # type: ignore[misc]
        parts = [stream.step(x[:, :, a:b], False) for a, b in pairwise([0, *cuts, 400])]
        parts.append(stream.step(x[:, :, :0], True))
        assert torch.equal(torch.cat(parts, 2), whole), cuts


@pytest.mark.native
@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_sums_the_same_integers(isa: str, tmp_path: Path) -> None:
    script = (
        "import sys, torch\n"
        "from op_cases import CONV1D, INT8_MRF, UPSAMPLE, channels, with_ranges\n"
        "from fastvoc.runtime.registry import OPS\n"
        "from fastvoc.ops import conv1d, mrf, upsample\n"
        "for op, table in (('conv1d', CONV1D), ('upsample', UPSAMPLE), ('mrf', INT8_MRF)):\n"
        "    for name, make in table.items():\n"
        "        params = make()\n"
        "        x = torch.randn(1, channels(params), 151)\n"
        "        params = with_ranges(params, x)\n"
        "        y, meant = OPS[op](x, params, backend='cpp'), OPS[op].reference(x, params)\n"
        "        error = ((y.double() - meant).norm() / meant.norm()).item()\n"
        "        assert error < 4e-3, (op, name, error)\n"
        "weight = torch.randint(-127, 128, (33, 50, 5)).float()\n"
        "weight[:, 0, 0] = 127\n"
        "x, span = torch.randint(0, 256, (1, 50, 99)).float(), torch.tensor([0.0, 255.0])\n"
        "y = conv1d.conv1d(x, conv1d.Conv1dParams(weight, None, input_range=span), backend='cpp')\n"
        "assert torch.equal(y.double(), torch.nn.functional.conv1d(x.double(), weight.double()))\n"
    )
    run_under(isa, script)


def test_a_stage_is_close_to_its_own_in_float32() -> None:
    params = mrf_params(64, (3, 7, 11), ((1, 3, 5),) * 3, 2)
    x = torch.randn(1, 64, 2000)
    exact = OPS["mrf"].reference(x.double(), cast(params, torch.float64))
    assert 1e-4 < relative_l2(OPS["mrf"].reference(x, with_ranges(params, x)), exact) < 2e-2


@pytest.mark.native
def test_refusals_say_why() -> None:
    params = MRF["one-block"]()
    x = torch.randn(1, channels(params), 20)
    whole = with_ranges(params, x)
    first, *rest = params.convs()
    mixed = replace(params, blocks=(((replace(first, input_range=torch.tensor([-1.0, 1.0])), *rest),),))
    with pytest.raises(BackendError, match="wants an input range for every convolution or for none"):
        mrf(x, mixed, backend="cpp")
    assert mrf(x, mixed).shape == x.shape
    narrow = replace(cast(replace(params), torch.bfloat16), blocks=with_ranges(cast(params, torch.bfloat16), x).blocks)
    with pytest.raises(BackendError, match=r"whole numbers for activations in torch\.float32, not in torch\.bfloat16"):
        mrf(x.to(torch.bfloat16), narrow, backend="cpp")
    long = Conv1dParams(torch.randn(1, 3301, 10), None, input_range=torch.tensor([0.0, 1.0]))
    with pytest.raises(BackendError, match="sums up to 33000 products of whole numbers, not 33010"):
        conv1d(torch.rand(1, 3301, 10), long, backend="cpp")
    assert whole.convs()[0].input_range is not None
