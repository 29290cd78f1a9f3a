"""convnext_stream: a whole network on chunks of any size equals its layers one after the other, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from op_cases import block_params, cast, norm_params
from torch import Tensor

from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.convnext_stream import ConvNextStream, joined
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.ops.stream import OpStream
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.registry import OPS
from helpers import relative_l2, run_under

pytestmark = pytest.mark.native

Case = tuple[int, int, int, int, int, int, int | None]
CASES: dict[str, Case] = {  # inputs, channels, hidden, outputs, kernel, blocks, rows of the adaptive norms
    "wide": (10, 96, 150, 70, 7, 3, None),
    "odd": (37, 21, 101, 35, 5, 2, None),
    "adaptive": (6, 40, 72, 18, 7, 2, 3),
    "chunks": (5, 70, 1037, 6, 3, 2, None),
    "kernel-1": (8, 64, 64, 16, 1, 2, None),
    "no-blocks": (12, 20, 1, 9, 3, 0, None),
}
CUTS = ([], [1, 2, 3, 4, 5, 6], [0, 5, 5, 10, 25, 27], [13], [150], [1, 131])


def conv_params(cin: int, cout: int, kernel: int) -> Conv1dParams:
    weight = torch.randn(cout, cin, kernel) / (cin * kernel) ** 0.5
    return Conv1dParams(weight, torch.randn(cout) * 0.1, padding=(kernel // 2, kernel // 2))


def network(case: Case) -> list[tuple[str, Any]]:
    """The layers of a network: op and parameters."""
    cin, channels, hidden, out, kernel, blocks, rows = case
    return [
        ("conv1d", conv_params(cin, channels, kernel)),
        ("layer_norm", norm_params(channels, rows)),
        *(("convnext_block", block_params(channels, hidden, kernel, rows)) for _ in range(blocks)),
        ("layer_norm", norm_params(channels)),
        ("conv1d", conv_params(channels, out, 1)),
    ]


def layers(parts: list[tuple[str, Any]], backend: str = "cpp") -> list[OpStream]:
    streams = []
    for op, params in parts:
        impl = OPS[op].impls[backend]
        assert impl.stream is not None
        streams.append(impl.stream(params, impl.packed(params, True)))
    return streams


def one(parts: list[tuple[str, Any]], exact: bool = True) -> ConvNextStream:
    stream = joined(layers(parts), exact=exact)
    assert stream is not None
    assert (stream._network.weights[1].dtype is torch.float32) == exact
    return stream


def one_by_one(parts: list[tuple[str, Any]], x: Tensor, row: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """The network on a whole signal, by the reference in a dtype if given."""
    for i, (op, params) in enumerate(parts):
        more = [row] if op == "convnext_block" or i == 1 else []
        if dtype is None:
            x = OPS[op](x, params, *more, backend="cpp")
        else:
            x = OPS[op].reference(x.to(dtype), cast(params, dtype), *more)
    return x


def in_chunks(stream: ConvNextStream, x: Tensor, row: Tensor | None, cuts: list[int]) -> Tensor:
    parts = list(pairwise([0, *cuts, x.shape[2]]))
    return torch.cat([stream.step(x[:, :, a:b], i + 1 == len(parts), row) for i, (a, b) in enumerate(parts)], 2)


@pytest.mark.parametrize("name", CASES)
def test_any_chunks_equal_the_layers_one_by_one(name: str, nan_poison: None) -> None:
    parts, rows = network(CASES[name]), CASES[name][-1]
    for items in (1, 3):
        row = None if rows is None else torch.arange(items) % rows
        for steps in (1, 2, 9, 40, 233):
            x = torch.randn(items, CASES[name][0], steps)
            whole = one_by_one(parts, x, row)
            assert relative_l2(whole, one_by_one(parts, x, row, torch.float64)) < 2e-6
            for cuts in CUTS:
                if not cuts or cuts[-1] <= steps:
                    assert torch.equal(in_chunks(one(parts), x, row, cuts), whole), (items, steps, cuts)


@pytest.mark.parametrize("name", CASES)
def test_trios_are_near_and_no_cut_changes_a_bit(name: str, nan_poison: None) -> None:
    parts, rows = network(CASES[name]), CASES[name][-1]
    for items in (1, 3):
        row = None if rows is None else torch.arange(items) % rows
        for steps in (1, 9, 40, 233):
            x = torch.randn(items, CASES[name][0], steps)
            whole = in_chunks(one(parts, False), x, row, [])
            assert relative_l2(whole, one_by_one(parts, x, row, torch.float64)) < 3e-6
            for cuts in CUTS:
                if cuts and cuts[-1] <= steps:
                    assert torch.equal(in_chunks(one(parts, False), x, row, cuts), whole), (items, steps, cuts)


def test_trios_multiply_what_packing_says() -> None:
    """One output's weights times unit inputs, read back through a network without blocks, whose norm is known."""
    for cout, cin in ((1, 2), (16, 3), (17, 4), (70, 96), (33, 20)):
        weight = torch.randn(cout, cin)
        made = packing.pack_trios(weight)
        assert made is not None
        words, scale = made
        pairs, groups = -(-cout // 32), -(-cin // 3)
        first, second = words.view(pairs, groups, 2, 2, 16).unbind(3)
        middle = ((first & 2047) << 21) | ((second & 2047) << 10)
        units = torch.stack([first, middle, second], -1).permute(0, 2, 3, 1, 4).reshape(pairs * 32, groups * 3)
        back = units.double()[:cout, :cin] * scale.double()[:cout, None]
        assert (back - weight).abs().max() <= weight.abs().max() * 2**-20
        assert not units[cout:].any()
        ones = ("layer_norm", LayerNormParams(torch.zeros(cin), torch.ones(cin)))
        head = ("conv1d", Conv1dParams(weight[:, :, None], torch.zeros(cout)))
        stream = one([("conv1d", conv_params(4, cin, 1)), ones, ones, head], False)
        y = stream.step(torch.randn(2, 4, 30), True, None)
        assert relative_l2(y, back.sum(1)[None, :, None].expand_as(y)) < 1e-6


def test_weights_far_above_the_others_stay_floats() -> None:
    parts = network(CASES["wide"])
    weight = parts[-1][1].weight.clone()
    x = torch.randn(1, 10, 30)
    for value in (1e3, torch.inf, torch.nan):
        weight[3, 5] = value
        changed = [*parts[:-1], ("conv1d", replace(parts[-1][1], weight=weight))]
        stream = joined(layers(changed), exact=False)
        assert stream is not None
        assert stream._network.weights[1].dtype is torch.float32
        whole = one_by_one(changed, x, None)
        assert torch.allclose(in_chunks(stream, x, None, [5]), whole, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("exact", [True, False])
def test_a_chunk_of_nothing_and_a_late_end(exact: bool, nan_poison: None) -> None:
    parts = network(CASES["wide"])
    x = torch.randn(1, 10, 30)
    stream = one(parts, exact)
    pieces = [stream.step(part, False, None) for part in (x[:, :, :0], x[:, :, :17], x[:, :, :0], x[:, :, 17:])]
    pieces.append(stream.step(x[:, :, :0], True, None))
    whole = one_by_one(parts, x, None) if exact else in_chunks(one(parts, False), x, None, [])
    assert torch.equal(torch.cat(pieces, 2), whole)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", ["wide", "adaptive"])
def test_threads_batch_and_position_do_not_change_a_bit(name: str, exact: bool) -> None:
    parts, rows = network(CASES[name]), CASES[name][-1]
    x = torch.randn(1, CASES[name][0], 60)
    before = torch.get_num_threads()
    results = []
    for threads, items, position in ((1, 1, 0), (2, 1, 0), (5, 1, 0), (2, 7, 3), (3, 150, 149)):
        torch.set_num_threads(threads)
        row = None if rows is None else torch.full((items,), 1)
        many = torch.full((items, x.shape[1], 60), torch.nan)
        many[position] = x[0]
        results.append(in_chunks(one(parts, exact), many, row, [5, 10, 30, 31])[position])
    torch.set_num_threads(before)
    assert not results[0].isnan().any()
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_the_state_moves_and_a_step_leaves_the_one_before(nan_poison: None) -> None:
    parts = network(CASES["wide"])
    x = torch.randn(2, 10, 50)
    stream, other = one(parts), one(parts)
    stream.step(x[:, :, :23], False, None)
    kept, counters = stream.tensors(), stream.counters
    copies = {name: t.clone() for name, t in kept.items()}
    first = stream.step(x[:, :, 23:40], False, None)
    assert all(torch.equal(kept[name], copies[name]) for name in kept)
    other.restore(kept, counters)
    assert torch.equal(other.step(x[:, :, 23:40], False, None), first)
    assert stream.counters == other.counters == (sum(3 for _ in range(4)),)
    assert torch.equal(stream.step(x[:, :, 40:], True, None), other.step(x[:, :, 40:], True, None))


@pytest.mark.parametrize("exact", [True, False])
def test_nan_stays_in_its_receptive_field_and_item(exact: bool) -> None:
    parts = network(CASES["wide"])
    x = torch.randn(2, 10, 90)
    clean = in_chunks(one(parts, exact), x, None, [20, 45])
    x[0, 4, 44] = torch.nan
    y = in_chunks(one(parts, exact), x, None, [20, 45])
    first, last = one(parts).reads(44, 44)
    touched = torch.zeros(90, dtype=torch.bool)
    touched[first : last + 1] = True
    assert torch.equal(y[0].isnan().any(0), touched)
    assert torch.equal(y[0][:, ~touched], clean[0][:, ~touched])
    assert torch.equal(y[1], clean[1])


def test_other_layers_are_left_alone() -> None:
    parts = network(CASES["odd"])
    assert joined(layers(parts, "torch")) is None
    assert joined(layers(parts)[:3]) is None
    assert joined([layers(parts)[1], *layers(parts)[1:]]) is None
    reflect = Conv1dParams(torch.randn(21, 37, 5), None, padding=(2, 2), pad_mode="reflect")
    assert joined(layers([("conv1d", reflect), *parts[1:]])) is None


@pytest.mark.parametrize("exact", [True, False])
def test_streams_of_a_network_share_its_weights_until_one_changes(exact: bool) -> None:
    parts = network(CASES["odd"])
    made = layers(parts)
    first, _, second = (joined(made, exact=kind) for kind in (exact, not exact, exact))
    assert first is not None
    assert second is not None
    assert all(a is b for a, b in zip(first._network.weights, second._network.weights, strict=True))
    other = layers([*parts[:2], ("convnext_block", block_params(21, 101, 5)), *parts[3:]])[2]
    third = joined([*made[:2], other, *made[3:]], exact=exact)
    assert third is not None
    assert not torch.equal(third._network.weights[0], first._network.weights[0])
    assert joined([*made[:2], *layers([("convnext_block", block_params(21, 101, 5, 2))]), *made[3:]]) is None


@pytest.mark.parametrize("exact", [True, False])
def test_wrong_weights_are_told(exact: bool) -> None:
    stream = one(network(CASES["odd"]), exact)
    x = torch.randn(1, 37, 5)
    good = stream._network
    for wrong in (
        good._replace(weights=good.weights[:-1]),
        good._replace(weights=[*good.weights, good.weights[0]]),
        good._replace(chunks=good.chunks[:-1]),
        good._replace(eps=good.eps[:-1]),
        good._replace(weights=[good.weights[1], *good.weights[1:]]),
        good._replace(weights=[*good.weights[:2], good.weights[2].short(), *good.weights[3:]]),
    ):
        with pytest.raises(RuntimeError, match=r"convnext_stream|weight|expected"):
            ConvNextStream(wrong).step(x, False, None)


def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    n = one(network(CASES["adaptive"]))._network
    native = torch.ops._fastvoc.convnext_stream
    for have, steps, last in ((0, 4, False), (0, 4, True), (30, 11, False), (30, 0, True)):
        x, state, row = torch.randn(2, 6, steps), torch.zeros(2, n.state_floats), torch.tensor([0, 2])
        real = native(*n, x, state, have, last, row)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake = native(*n, torch.empty(2, 6, steps), state, have, last, row)
        assert [(t.shape, t.dtype) for t in fake] == [(t.shape, t.dtype) for t in real]


SCRIPT = """
import json
import torch
from helpers import relative_l2
from test_convnext_stream import CASES, in_chunks, network, one, one_by_one

torch.manual_seed(2)
equal = {}
for name, case in CASES.items():
    parts = network(case)
    x = torch.randn(2, case[0], 70)
    row = None if case[-1] is None else torch.tensor([2, 0])
    whole, fast = one_by_one(parts, x, row), in_chunks(one(parts, False), x, row, [])
    equal[name] = relative_l2(fast, whole) < 3e-6
    for cuts in ([], [5, 10, 31], [1, 69]):
        equal[name] &= torch.equal(in_chunks(one(parts), x, row, cuts), whole)
        equal[name] &= torch.equal(in_chunks(one(parts, False), x, row, cuts), fast)
print(json.dumps(equal))
"""


@pytest.mark.parametrize("isa", _library.ISAS[:-1])
def test_lower_instruction_sets(isa: str) -> None:
    assert all(json.loads(run_under(isa, SCRIPT)).values())
