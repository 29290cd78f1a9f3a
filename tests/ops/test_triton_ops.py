"""Every Triton kernel in Triton's interpreter against its meaning: odd sizes, dtypes, lengths, layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from op_cases import cast, strided
from torch import Tensor
from triton_cases import CASES, Case, rounding, small_tiles

from fastvoc.ops.nsf_source import KINDS, NsfSourceParams, begin, nsf_source
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode, rvq_decode_ref
from fastvoc.runtime import flags
from helpers import need_triton, relative_l2

each_case = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in CASES.items()])


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    need_triton()
    with torch.inference_mode(), small_tiles():
        yield


def _run(case: Case, x: Tensor, params: Any, **arguments: Any) -> Tensor:
    return case.op(x, params, **arguments, backend="triton")


@each_case
def test_equals_the_meaning(make: Callable[[], Case], nan_poison: None) -> None:
    """And an item depends on itself alone, bit for bit, whatever lies beside it and beyond its length."""
    case = make()
    steps = case.lengths[-1]
    lengths = [steps - 9, steps, case.lengths[0]]
    x, extra = case.draw(3, steps), case.extra(3, steps)
    poisoned = x.clone()
    for i, n in enumerate(lengths):
        poisoned[i, ..., n:] = torch.nan if x.is_floating_point() else -1
    batched = _run(case, poisoned, case.params, **extra, lengths=torch.tensor(lengths))
    for i, layouts in enumerate(((0,), (), (1, 2))):  # the longest one takes longest
        n = lengths[i]
        item, made = x[i : i + 1, :, :n], _made(case, n)
        own = {name: _of_item(value, i, made) for name, value in extra.items()}
        views = list(strided(item).values()) if x.is_floating_point() else [item] * 3
        y = batched[i : i + 1, ..., :made]
        assert all(torch.equal(_run(case, views[layout], case.params, **own), y) for layout in layouts), i
        assert not batched[i, ..., made:].any(), i
        expected = case.ref(cast(item, torch.float64), cast(case.params, torch.float64), **cast(own, torch.float64))
        assert y.shape == expected.shape
        if y.is_floating_point():
            assert y.dtype == torch.float32
            assert relative_l2(y, expected) < 2e-6, n
        else:
            assert torch.equal(y, expected)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        pytest.param(make, (torch.bfloat16, torch.float16)[i % 2], id=name)
        for i, (name, make) in enumerate(CASES.items())
    ],
)
def test_half_precision_is_as_exact_as_torch(make: Callable[[], Case], dtype: torch.dtype, nan_poison: None) -> None:
    case = make()
    if not case.half:
        pytest.skip("always computes in float32")
    steps = case.lengths[-1]
    params, x, extra = cast(case.params, dtype), cast(case.draw(1, steps), dtype), cast(case.extra(1, steps), dtype)
    with rounding():
        y = _run(case, x, params, **extra)
    wide = torch.float64
    expected = case.ref(cast(x, wide), cast(params, wide), **cast(extra, wide))
    assert y.dtype == dtype
    assert relative_l2(y, expected) <= 1.5 * relative_l2(case.ref(x, params, **extra), expected)


def _made(case: Case, steps: int) -> int:
    x, params, extra = (cast(given, "meta") for given in (case.draw(1, steps), case.params, case.extra(1, steps)))
    return int(case.ref(x, params, **extra).shape[-1])


def _of_item(argument: Any, i: int, made: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return argument[i : i + 1, ..., :made] if argument.dim() > 1 else argument[i : i + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_goes_on_from_its_state(kind: Any, nan_poison: None) -> None:
    params = NsfSourceParams(torch.randn(3), torch.randn(1) * 0.1, 24000, 6, kind, noise="normal")
    f0, seed = 100 + 300 * torch.rand(1, 1, 7), torch.tensor([5])
    whole = nsf_source(f0, params, seed=seed, backend="triton")
    state = begin(params, 1, seed)
    seen, made = f0[:, :, : 3 + params.lookahead], torch.tensor([3])
    first = nsf_source(seen, params, state, seed=seed, frames=made, backend="triton")[:, :, :18]
    rest = nsf_source(f0[:, :, 3:], params, state, seed=seed, backend="triton")
    assert torch.equal(torch.cat([first, rest], 2), whole)


@pytest.mark.parametrize(("code", "wrong"), [(4, False), (5, True), (-1, True)])
def test_codes_outside_of_the_codebooks_are_flagged(code: int, wrong: bool) -> None:
    params = RvqParams(torch.randn(2, 5, 8))
    codes = torch.full((1, 2, 3), code)
    flags.take(codes.device, flags.CODES)
    impl = rvq_decode.impls["triton"]  # past the check, which looks at codes on the CPU itself
    y = impl.run(codes, impl.pack(params))
    assert torch.equal(y, rvq_decode_ref(codes.clamp(0, 4), params))
    assert flags.take(codes.device, flags.CODES) is wrong
