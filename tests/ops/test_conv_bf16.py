"""The convolutions in bfloat16: error beside torch's own, and what must not change a bit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from op_cases import CONV1D, MRF, NARROW_MRF, UPSAMPLE, cast, channels, double, strided

from fastvoc import use_exact
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import OPS
from helpers import batches_with, relative_l2, run_under

pytestmark = pytest.mark.native
BF16 = torch.bfloat16
CASES = [
    pytest.param(op, make, id=f"{op}-{name}")
    for op, table in (("conv1d", CONV1D), ("upsample", UPSAMPLE), ("mrf", MRF | NARROW_MRF))
    for name, make in table.items()
]
each_case = pytest.mark.parametrize(("op", "make"), CASES)


def half(make: Callable[[], Any]) -> Any:
    return cast(make(), BF16)


@each_case
def test_is_as_close_as_torchs_own(op: str, make: Callable[[], Any], nan_poison: None) -> None:
    params, call = half(make), OPS[op]
    for steps in (97, 400, 1003):
        x = torch.randn(2, channels(params), steps).to(BF16)
        y = call(x, params, backend="cpp")
        assert y.dtype is BF16
        meant = call.reference(x.double(), double(params))
        ours, torchs = relative_l2(y, meant), relative_l2(call.reference(x, params), meant)
        assert ours < max(1.2 * torchs, 1.05 * relative_l2(meant.to(BF16), meant)), (steps, ours, torchs)


@each_case
def test_short_and_ragged_items_equal_single_ones(op: str, make: Callable[[], Any], nan_poison: None) -> None:
    params, call = half(make), OPS[op]
    lengths = torch.tensor([150, 107, 161])
    x = torch.full((3, channels(params), 161), torch.nan, dtype=BF16)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    batched = call(x, params, *([None] if op == "conv1d" else []), lengths, backend="cpp")
    for i, n in enumerate(lengths.tolist()):
        alone = call(x[i : i + 1, :, :n], params, backend="cpp")[0]
        assert torch.equal(batched[i, :, : alone.shape[1]], alone)
        assert not batched[i, :, alone.shape[1] :].any()


@each_case
def test_threads_batch_and_layout_do_not_change_a_bit(op: str, make: Callable[[], Any]) -> None:
    params, call = half(make), OPS[op]
    x = torch.randn(1, channels(params), 777).to(BF16)
    results = [
        call(stacked, params, backend="cpp")[i]
        for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 4, 1), (2, 8, 7)))
    ]
    results += [call(view, params, backend="cpp")[0] for view in strided(x).values()]
    assert all(torch.equal(results[0], other) for other in results[1:])


@each_case
@pytest.mark.parametrize("own", [torch.float32, BF16], ids=str)
def test_inputs_of_the_other_type_are_converted(
    op: str, make: Callable[[], Any], own: torch.dtype, nan_poison: None
) -> None:
    params, impl = cast(make(), own), OPS[op].impls["cpp"]
    assert impl.bind is not None
    packed = impl.packed(params, exact=False)
    run = impl.bind(packed)
    x = torch.randn(2, channels(params), 131).to(torch.float32 if own is BF16 else BF16)
    for view in strided(x).values():
        y = run(view)
        assert y.dtype is own
        assert torch.equal(y, impl.run(view.to(own), packed))


@each_case
def test_chunks_equal_the_whole(op: str, make: Callable[[], Any], nan_poison: None) -> None:
    params, impl = half(make), OPS[op].impls["cpp"]
    packed = impl.packed(params, exact=True)
    x = torch.randn(2, channels(params), 400).to(BF16)
    with use_exact():
        whole = OPS[op](x, params, backend="cpp")
    for cuts in ([], [1, 2, 150, 151, 390], list(range(7, 400, 7))):
        stream = impl.stream(params, packed)  # type: ignore[misc]
        parts = []
        for a, b in pairwise([0, *cuts, 400]):
            parts.append(stream.step(x[:, :, a:b], False))
            moved = impl.stream(params, packed)  # type: ignore[misc]
            moved.restore({name: t.clone() for name, t in stream.tensors().items()}, stream.counters)
            stream = moved
        parts.append(stream.step(x[:, :, :0], True))
        assert torch.equal(torch.cat(parts, 2), whole), cuts


@pytest.mark.parametrize("name", ["v1", "v3", "causal", "wide", "snake", "snake-causal"])
def test_fast_chunks_are_near_the_meaning(name: str, nan_poison: None) -> None:
    params, impl = half(MRF[name]), OPS["mrf"].impls["cpp"]
    packed = impl.packed(params, exact=False)
    assert any(packed.schemes)
    x = torch.randn(2, channels(params), 400).to(BF16)
    meant = OPS["mrf"].reference(x.double(), double(params))
    for cuts in ([], [1, 2, 150, 151, 390], list(range(7, 400, 7))):
        stream = impl.stream(params, packed)  # type: ignore[misc]
        parts = [stream.step(x[:, :, a:b], b == 400) for a, b in pairwise([0, *cuts, 400])]
        assert relative_l2(torch.cat(parts, 2), meant) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("name", ["half-panel-v3", "half-panel-snake", "panel-v2", "panel-v3"])
def test_many_strips_of_narrow_stages(name: str, dtype: torch.dtype, nan_poison: None) -> None:
    params, call = cast(NARROW_MRF[name](), dtype), OPS["mrf"]
    lengths = torch.tensor([7013, 3331, 13])
    x = torch.full((3, channels(params), 7013), torch.nan, dtype=dtype)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    y = call(x, params, lengths, backend="cpp")
    for i, n in enumerate(lengths.tolist()):
        alone = x[i : i + 1, :, :n]
        assert torch.equal(y[i, :, :n], call(alone, params, backend="cpp")[0])
        assert not y[i, :, n:].any()
        meant = call.reference(alone.double(), double(params))[0]
        torchs = relative_l2(call.reference(alone, params)[0], meant)
        assert relative_l2(y[i, :, :n], meant) < max(1.2 * torchs, 2e-6)


def test_conv1d_adds_a_residual_before_the_rounding() -> None:
    call, params = OPS["conv1d"], half(CONV1D["elu"])
    x, residual = torch.randn(2, channels(params), 333).to(BF16), torch.randn(2, 9, 333).to(BF16)
    meant = call.reference(x.double(), double(params), residual.double())
    ours = relative_l2(call(x, params, residual, backend="cpp"), meant)
    assert ours < 1.2 * relative_l2(call.reference(x, params, residual), meant)
    layouts = [call(x, params, view, backend="cpp") for view in strided(residual).values()]
    assert all(torch.equal(layouts[0], other) for other in layouts[1:])


@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees_up_to_rounding(isa: str) -> None:
    """Sums of float32 in one order everywhere, though not every one rounds between the products of a pair."""
    script = (
        "import torch\n"
        "from op_cases import CONV1D, MRF, NARROW_MRF, UPSAMPLE, cast, channels, double\n"
        "from fastvoc.runtime.registry import OPS\n"
        "from fastvoc.ops import conv1d, mrf, upsample\n"
        "for op, table in (('conv1d', CONV1D), ('upsample', UPSAMPLE), ('mrf', MRF | NARROW_MRF)):\n"
        "    for name, make in table.items():\n"
        "        params = cast(make(), torch.bfloat16)\n"
        "        x = torch.randn(1, channels(params), 151).to(torch.bfloat16)\n"
        "        y, meant = OPS[op](x, params, backend='cpp'), OPS[op].reference(x.double(), double(params))\n"
        "        torchs = OPS[op].reference(x, params)\n"
        "        error, allowed = (((v.double() - meant).norm() / meant.norm()).item() for v in (y, torchs))\n"
        "        assert error < max(1.25 * allowed, 2e-3), (op, name, error, allowed)\n"
    )
    run_under(isa, script)


def test_float16_is_refused_with_the_reason() -> None:
    params = cast(MRF["one-block"](), torch.float16)
    from fastvoc.errors import BackendError

    with pytest.raises(BackendError, match=r"computes in torch\.float32 and torch\.bfloat16, not in torch\.float16"):
        OPS["mrf"](torch.randn(1, 5, 9).half(), params, backend="cpp")
