"""Hopper's stage kernel, emulated: residual blocks by products of warpgroups against their meaning in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from cuda_emulation import RUN, dry_launches, pack_mrf, set_device
from op_cases import cast, channels, double, mrf_params, strided, with_snakes
from torch import Tensor

from fastvoc.models.hifigan import HIFIGAN_V1, HifiGan
from fastvoc.ops.activation import leaky_relu
from fastvoc.ops.mrf import mrf_ref
from fastvoc.ops.mrf_params import MrfParams
from fastvoc.runtime import packing
from helpers import ROOT, relative_l2

sys.path.append(str(ROOT / "benchmarks"))
import stage_cost
from cost_model import Device

STAGE = -2
# Widths of 32 to 256, padded or not; halos beyond a product's 64 rows; layers of one convolution, odd ones of a block,
# kernels of one tap that wait for nobody else's rows.
CASES: dict[str, tuple[Callable[[], MrfParams], int]] = {
    "32": (lambda: mrf_params(32, (3, 7), ((1, 3, 5),) * 2, 2), 1100),
    "32-odd": (lambda: mrf_params(19, (3, 5), ((1, 2, 3),) * 2, 1), 700),
    "64": (lambda: mrf_params(50, (3, 11), ((1, 3, 5), (1, 5)), 2), 400),
    "64-far": (lambda: mrf_params(34, (11,), ((9, 7, 5),), 2), 300),
    "64-snake": (lambda: with_snakes(mrf_params(40, (3, 7), ((1, 3, 5),) * 2, 2)), 290),
    "64-one": (lambda: mrf_params(40, (1, 3), ((1, 1, 1), (1, 3)), 1), 280),
    "128": (lambda: mrf_params(128, (7, 3), ((1, 3), (1,)), 2), 260),
    "128-deep": (lambda: mrf_params(128, (3, 7), ((1, 3, 7), (3, 12)), 1), 280),
    "128-snake": (lambda: with_snakes(mrf_params(100, (3, 7), ((1, 3, 5), (1, 3)), 2)), 300),
    "128-causal": (lambda: mrf_params(70, (3,), ((1, 3, 5),), 2, "causal"), 270),
    "256": (lambda: mrf_params(131, (3, 5), ((1, 5), (2,)), 2), 135),
}
# Few multiprocessors take large tiles and all blocks in a job, many small ones apart; threads and copies in any order.
DEVICES: tuple[dict[str, Any], ...] = (
    {"multiprocessors": 1},
    {"multiprocessors": 3, "early": True},
    {"multiprocessors": 132, "backwards": True},
    {"multiprocessors": 20, "early": True, "backwards": True},
)
pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def device() -> Iterator[None]:
    set_device(hopper=True)
    yield
    set_device()


def case(name: str) -> MrfParams:
    made: MrfParams = cast(CASES[name][0](), torch.bfloat16)
    return made


def planned(params: MrfParams, items: int, steps: int, multiprocessors: int) -> stage_cost.Stage:
    """How it runs on a device with so many multiprocessors."""
    device = replace(Device.read("sm_90"), multiprocessors=multiprocessors)
    plan = stage_cost.plan(device, params, items, steps)
    assert plan is not None
    return plan


def draw(params: MrfParams, steps: int, lengths: Tensor) -> Tensor:
    x = torch.full((len(lengths), channels(params), steps), torch.nan, dtype=torch.bfloat16)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    return x


@pytest.mark.parametrize("name", CASES)
def test_equals_the_meaning_with_the_same_bits_on_every_device(name: str, nan_poison: None) -> None:
    params, steps = case(name), CASES[name][1]
    lengths = torch.tensor([steps, steps - 37, 5])
    x, outputs, plans = draw(params, steps, lengths), [], set()
    for facts in DEVICES:
        set_device(hopper=True, **facts)
        packed = pack_mrf(params)
        assert packed.schemes[0] == STAGE
        outputs.append(RUN["mrf"](x, packed, lengths))
        plan = planned(params, len(lengths), steps, facts["multiprocessors"])
        plans.add((plan.rows, plan.columns, plan.planned()[1]))
    assert relative_l2(outputs[0], mrf_ref(x.double(), double(params), lengths)) < 4e-3
    for other in outputs[1:]:
        assert torch.equal(other, outputs[0])
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(RUN["mrf"](x[i : i + 1, :, :n], packed)[0], outputs[0][i, :, :n])
        assert not outputs[0][i, :, n:].any()
    assert len(plans) > 1 or len(params.blocks) == 1, "one shape on all devices"


def test_layout_of_the_input_does_not_matter() -> None:
    params = case("64")
    packed = pack_mrf(params)
    views = strided(torch.randn(2, channels(params), 137).bfloat16())
    first = RUN["mrf"](views.pop("channel-major"), packed)
    for name, x in views.items():
        assert torch.equal(RUN["mrf"](x, packed), first), name


def test_only_the_devices_and_stages_that_it_is_for() -> None:
    def scheme(params: MrfParams, dtype: torch.dtype = torch.bfloat16) -> int:
        found: int = pack_mrf(cast(params, dtype)).schemes[0]
        return found

    wide = CASES["64"][0]()
    assert scheme(wide) == STAGE
    assert scheme(wide, torch.float16) == -1
    assert scheme(mrf_params(16, (3,), ((1,),), 1)) == -1
    assert scheme(with_snakes(mrf_params(32, (3,), ((1,),), 1))) == 0, "no tile has them either"
    assert scheme(replace(wide, act=leaky_relu(-0.5))) == -1
    assert scheme(mrf_params(64, (3,) * 9, ((1,),) * 9, 1)) == -1, "more blocks than a launch takes"
    assert scheme(mrf_params(64, (3,), ((1,),), 1, "reflect")) == 0
    set_device()
    assert scheme(wide) == -1


def test_weights_of_products_are_pieces_of_eight_by_eight() -> None:
    weight = torch.arange(24 * 20 * 3).reshape(24, 20, 3)
    packed = packing.pack_warpgroups(weight, 32, 32)
    assert packed.shape == (3, 2, 4, 2, 8, 8)
    for tap, cout, cin in ((0, 0, 0), (2, 23, 19), (1, 9, 17)):
        assert packed[tap, cin // 16, cout // 8, cin % 16 // 8, cout % 8, cin % 8] == weight[cout, cin, tap]
    assert not packed[:, :, 3].any()
    assert not packed[:, 1, :, 0, :, 4:].any()


@pytest.mark.parametrize("name", ["mrf.0", "mrf.1", "mrf.2", "mrf.3"])
@pytest.mark.parametrize(("multiprocessors", "frames"), [(132, 86), (66, 250), (4, 100)])
def test_the_cost_model_cuts_it_as_the_library_does(name: str, multiprocessors: int, frames: int) -> None:
    params: MrfParams = cast(HifiGan(HIFIGAN_V1).layers()[name].params(), torch.bfloat16)
    steps = frames * {256: 8, 128: 64, 64: 128, 32: 256}[channels(params)]
    set_device(hopper=True, multiprocessors=multiprocessors)
    plan = planned(params, 1, steps, multiprocessors)
    with dry_launches() as count:
        RUN["mrf"](torch.empty(1, steps, channels(params), dtype=torch.bfloat16).mT, pack_mrf(params))
        assert count() == plan.launches()
