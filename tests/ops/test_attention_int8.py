"""attention_block on whole numbers: what the reference means, and that the kernels give it in any batch and chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from op_cases import ATTENTION as CASES
from op_cases import cast, strided, with_attention_ranges
from torch import Tensor

from fastvoc.errors import BackendError, DtypeError, ShapeError
from fastvoc.ops.attention_block import OP, AttentionBlockParams, attention_block_ref
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from helpers import batches_with, relative_l2, run_under

each_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


def made(make: Callable[[], AttentionBlockParams], steps: int, items: int = 1) -> tuple[AttentionBlockParams, Tensor]:
    """Parameters with ranges, and what they saw."""
    params = make()
    x = torch.randn(items, params.channels, steps)
    return with_attention_ranges(params, x), x


def rounded(weight: Tensor) -> Tensor:
    """A weight as its whole numbers stand for it."""
    whole, step = packing.quantise_weight(weight)
    return whole * step[:, None]


def test_the_reference_is_the_layer_of_rounded_weights_and_inputs() -> None:
    """The finer the bytes, the nearer."""
    params = cast(CASES["odd"](), torch.float64)
    x = torch.randn(1, params.channels, 20).double()
    six = ("query", "key", "value", "out", "expand", "project")
    meant = attention_block_ref(x, replace(params, **{name: rounded(getattr(params, name)) for name in six}))
    spans = with_attention_ranges(params, x).ranges
    assert spans is not None
    errors = [
        relative_l2(attention_block_ref(x, replace(params, ranges=spans * wide)), meant) for wide in (17, 4.2, 1.06)
    ]
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2] > 0
    assert errors[2] < 2e-2


@each_case
def test_it_stays_near_the_layer_in_floats(make: Callable[[], AttentionBlockParams]) -> None:
    params, x = made(make, 50)
    exact = attention_block_ref(x.double(), cast(replace(params, ranges=None), torch.float64))
    assert 1e-4 < relative_l2(attention_block_ref(x, params), exact) < 3e-2


@pytest.mark.native
@each_case
def test_kernels_equal_the_reference(make: Callable[[], AttentionBlockParams], nan_poison: None) -> None:
    """But for values between two bytes, which the last bit of a norm, a softmax or a GELU moves to the other one."""
    for items, steps in ((1, 1), (2, 2), (3, 50), (1, 300), (100, 2)):
        params, x = made(make, steps, items)
        y, meant = OP(x, params, backend="cpp"), attention_block_ref(x, params)
        assert y.shape == x.shape
        assert y.dtype is torch.float32
        assert relative_l2(y, meant) < 2e-3, (items, steps)


@pytest.mark.native
@each_case
def test_chunks_equal_one_call(make: Callable[[], AttentionBlockParams], nan_poison: None) -> None:
    params, x = made(make, 340, 2)
    whole = OP(x, params, backend="cpp")
    impl = OP.impls["cpp"]
    assert impl.stream is not None
    for cuts in ([1, 2, 1, 30, 3, 1, 200, 7, 90, 5], [2] * 170):
        stream = impl.stream(params, impl.packed(params, True))
        parts = [stream.step(part, False) for part in x.split(cuts, 2)]
        assert torch.equal(torch.cat(parts, 2), whole)


@pytest.mark.native
@pytest.mark.parametrize("name", ["odd", "shared-keys", "mimi"])
def test_ragged_batches_threads_and_layout_do_not_change_a_bit(name: str, nan_poison: None) -> None:
    params, x = made(CASES[name], 61)
    results = [OP(view, params, backend="cpp")[0] for view in strided(x).values()]
    for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 4, 1), (2, 9, 8), (4, 7, 0))):
        lengths = torch.randint(1, 62, (len(stacked),))
        lengths[i] = 61
        y = OP(stacked, params, lengths, backend="cpp")
        results.append(y[i])
        for other, n in zip(y, lengths.tolist(), strict=True):
            assert not other[:, n:].any()
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
def test_nan_in_one_item_leaves_the_others() -> None:
    params, x = made(CASES["odd"], 30, 3)
    clean = OP(x, params, backend="cpp")
    x[1, 3, 5] = torch.nan
    y = OP(x, params, backend="cpp")
    assert y[1, 3, 5].isnan()
    assert torch.equal(y[[0, 2]], clean[[0, 2]])
    assert torch.equal(y[1, :, :5], clean[1, :, :5])


@pytest.mark.native
@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_gives_the_reference(isa: str, tmp_path: Path) -> None:
    run_under(
        isa,
        "import torch\n"
        "from op_cases import ATTENTION, with_attention_ranges\n"
        "from fastvoc.ops.attention_block import OP\n"
        "for name, make in ATTENTION.items():\n"
        "    params = make()\n"
        "    x = torch.randn(2, params.channels, 40)\n"
        "    params = with_attention_ranges(params, x)\n"
        "    y, meant = OP(x, params, backend='cpp'), OP.reference(x, params)\n"
        "    error = ((y - meant).norm() / meant.norm()).item()\n"
        "    assert error < 2e-3, (name, error)\n",
    )


def test_refusals_say_why() -> None:
    params, x = made(CASES["panels"], 8)
    with pytest.raises(ShapeError, match=r"attention_block: ranges: expected \[4, 2\], got \[2\]"):
        replace(params, ranges=torch.zeros(2))
    with pytest.raises(DtypeError, match=r"attention_block: ranges: expected torch\.float32, got torch\.float64"):
        replace(params, ranges=torch.zeros(4, 2).double())
    half = replace(cast(replace(params, ranges=None), torch.bfloat16), ranges=params.ranges)
    with pytest.raises(BackendError, match=r"whole numbers for activations in torch\.float32, not in torch\.bfloat16"):
        OP(x.to(torch.bfloat16), half, backend="cpp")
    with pytest.raises(BackendError, match="does not multiply whole numbers"):
        OP(x, params, backend="triton")
