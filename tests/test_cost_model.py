"""The arithmetic of estimated times, and the tables that the package has."""

from __future__ import annotations

import pkgutil
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch

import fastvoc.ops
from fastvoc.models.hifigan import HIFIGAN_V1, HifiGan
from fastvoc.runtime import choice
from fastvoc.runtime.registry import OPS
from helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import cost_model
from cost_model import Device, Nodes, Product

DEVICE = Device.read("sm_90")


def test_one_block_waits_and_many_keep_the_multipliers_busy() -> None:
    one = Product(128, 128, 32, 2, DEVICE.tensor, blocks=1, longest=100, total=100, stages=2)
    work = 2 * 128 * 128 * 32 / (DEVICE.tensor / DEVICE.multiprocessors)
    assert one.seconds(DEVICE) == pytest.approx(100 * (DEVICE.fetch + work) + 2 * DEVICE.fetch)
    assert replace(one, stages=4).seconds(DEVICE) < one.seconds(DEVICE)
    many = replace(one, blocks=132_000, total=13_200_000)
    assert many.seconds(DEVICE) >= max(13_200_000 * 2 * 128 * 32 * 2 / DEVICE.cache, 100_000 * work)


def test_bytes_beyond_the_cache_come_from_memory() -> None:
    assert DEVICE.moved(1e6) == 1e6 / DEVICE.cache
    assert DEVICE.moved(1e9) == 1e9 / DEVICE.memory


def test_a_stage_in_tiles_grows_with_its_signal_and_is_less_than_its_peak() -> None:
    model = HifiGan(HIFIGAN_V1)
    params = model.layers()["mrf.1"].params()
    steps = 5504 * 100
    flops = 2 * steps * sum(conv.weight.numel() for conv in params.convs())  # type: ignore[attr-defined]
    seconds = cost_model.chain(DEVICE, params, 1, steps)
    assert 1.35 < seconds * DEVICE.mma / flops < 2
    assert cost_model.chain(DEVICE, params, 10, steps) == pytest.approx(10 * seconds, rel=0.1)


def test_the_ops_of_a_reference_are_nodes() -> None:
    x, weight = torch.zeros(1, 64, 1000), torch.zeros(64, 64, 3)
    with torch.inference_mode(), Nodes(DEVICE) as nodes:
        torch.nn.functional.conv1d(x, weight).relu()
    assert nodes.count == 2, "conv1d is one node, not the two names that it has"
    assert nodes.seconds > 2 * DEVICE.node + 2 * 998 * 64 * 64 * 3 / DEVICE.fma


@pytest.mark.parametrize("capability", [80, 90])
def test_the_package_has_tables(capability: int) -> None:
    for module in pkgutil.iter_modules(fastvoc.ops.__path__, "fastvoc.ops."):
        import_module(module.name)
    table = choice.table(capability)
    assert table is not None
    assert (table.capability, table.sizes) == (capability, [choice.Size(1, 1.0), choice.Size(32, 10.0)])
    for row in table.rows:
        assert set(row.times) <= set(OPS[row.layer.op].impls)
        assert all(time > 0 for time in row.times.values())
    stage = table.row(choice.Layer("mrf", 2, (256, 256, 3)), choice.Size(1, 1.0))
    assert stage is not None
    assert stage.order(["triton", "torch", "cuda"])[0] == "triton", "of small calls"
