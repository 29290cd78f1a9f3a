"""The CUDA attention_block, compiled as plain C++, against its meaning in float64: whole signals, chunks, states."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import pytest
import torch
from cuda_emulation import DTYPES, RUN, SHARED_LIMITS, set_device
from op_cases import ATTENTION, attention_params, double
from op_cases import cast as as_dtype
from torch import Tensor

from fastvoc.ops.attention_block import OP, AttentionBlockParams, attention_block_ref
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import Spec
from helpers import relative_l2

ROUNDING = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
# Sizes of tiles for tensor cores, more heads than one block has, and the widest head.
CASES = {
    **{name: make for name, make in ATTENTION.items() if name != "mimi"},
    "tiles": lambda: attention_params(64, 96, 4, 16, 40),
    "widest": lambda: attention_params(16, 20, 1, 256, 33),
}
each_case = pytest.mark.parametrize("name", CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
State = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def device() -> None:
    set_device()


def run(x: Tensor, params: AttentionBlockParams, lengths: Tensor | None = None, state: State | None = None) -> Tensor:
    return RUN["attention_block"](x, OP.impls["cuda"].pack(params), lengths, *(state or (None, None, None)))


def test_equals_its_meaning_at_the_size_of_mimi() -> None:
    params = ATTENTION["mimi"]()
    x = torch.randn(1, params.channels, 9)
    assert relative_l2(run(x, params), attention_block_ref(x.double(), double(params))) < ROUNDING[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("spare", [0, 40])
@each_case
def test_chunks_give_the_bits_of_one_call(name: str, spare: int, dtype: torch.dtype) -> None:
    """Through rings with no place to spare, too, where a chunk goes in parts."""
    params = as_dtype(CASES[name](), dtype)
    x = torch.randn(2, params.channels, 60).to(dtype)
    whole = run(x, params)
    keys, values, place = params.zero_state(2, params.window - 1 + spare)
    edges = [0, 1, 3, 4, 12, 13, 55, 60]
    parts = [run(x[:, :, a:b], params, None, (keys, values, place + a)) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat(parts, 2), whole)


def test_items_at_their_own_places() -> None:
    params = CASES["panels"]()
    begun, lengths = [0, 13, 40], torch.tensor([20, 11, 3])
    x = torch.randn(3, params.channels, 60)
    whole = run(x, params)
    keys, values, place = params.zero_state(3, 30)
    for i, n in enumerate(begun):
        if n:
            run(x[i : i + 1, :, :n], params, None, (keys[i : i + 1], values[i : i + 1], place[i : i + 1]))
            place[i] = n
    chunk = torch.full((3, params.channels, 20), torch.nan)
    for i, (n, more) in enumerate(zip(begun, lengths.tolist(), strict=True)):
        chunk[i, :, :more] = x[i, :, n : n + more]
    y = run(chunk, params, lengths, (keys, values, place))
    assert place.tolist() == begun
    for i, (n, more) in enumerate(zip(begun, lengths.tolist(), strict=True)):
        assert torch.equal(y[i, :, :more], whole[i, :, n : n + more])
        assert not y[i, :, more:].any()


def test_far_into_a_signal_only_distances_count() -> None:
    params = CASES["panels"]()
    x = torch.randn(1, params.channels, 40)
    far = 25 * 86400  # a day
    late = run(x, params, None, (*params.zero_state(1, 64)[:2], torch.tensor([far])))
    first = run(x, params)
    later = slice(params.window, None)  # the zeros before the first step count there
    assert relative_l2(late[:, :, later], first[:, :, later]) < 1e-5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_stays_in_its_item_and_in_the_window(bad: float) -> None:
    params = CASES["odd"]()
    x = torch.randn(2, params.channels, 60)
    clean = run(x, params)
    x[1, 3, 5] = bad
    y = run(x, params)
    reached = slice(5, 5 + params.window)
    assert y[1, :, reached].isnan().all()
    y[1, :, reached] = clean[1, :, reached]
    assert torch.equal(y, clean)


def test_a_value_beyond_all_numbers_spoils_those_that_see_it() -> None:
    """Keys are finite there, and values are not."""
    params = CASES["odd"]()
    params.value.mul_(3e38)
    x = torch.randn(1, params.channels, 40)
    x[:, :, torch.arange(40) != 11] = 0.0
    params.norm1.bias.zero_()
    y, meant = run(x, params), attention_block_ref(x, params)
    assert meant.isnan().any()
    assert torch.equal(y.isnan(), meant.isnan())


def test_order_of_threads_does_not_matter() -> None:
    params = as_dtype(CASES["tiles"](), torch.float16)
    x = torch.randn(2, params.channels, 50).half()
    forwards = run(x, params)
    set_device(backwards=True)
    assert torch.equal(run(x, params), forwards)


def test_the_widest_head_fits_the_smallest_device() -> None:
    params = CASES["widest"]()
    set_device(shared=SHARED_LIMITS["sm_120"])
    x = torch.randn(1, params.channels, 5)
    assert relative_l2(run(x, params), attention_block_ref(x.double(), double(params))) < ROUNDING[torch.float32]
    supports = OP.impls["cuda"].supports
    with mock.patch.object(_library, "cuda_refusal", return_value=None):
        assert supports(Spec("cuda", torch.float32, params)) is None
        wider = attention_params(16, 20, 1, 258, 33)
        assert "256 channels at most, not 258" in str(supports(Spec("cuda", torch.float32, wider)))
    with pytest.raises(RuntimeError, match="heads of 258 channels are too wide"):
        run(x, wider)
