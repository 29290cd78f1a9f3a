"""Toom-Cook convolution inside mrf: against float64, and the same bits wherever a tile lies."""

from __future__ import annotations

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from op_cases import cast, double, mrf_params, with_snakes
from torch import Tensor

from fastvoc import use_exact
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.ops.mrf import OP, mrf, mrf_ref
from fastvoc.ops.mrf_params import MrfParams
from fastvoc.runtime import packing
from helpers import relative_l2

pytestmark = pytest.mark.native
BF16 = torch.bfloat16
QUICK = examples(40, derandomize=True, database=None)
KERNELS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15])


def correlate(x: Tensor, weight: Tensor, scheme: packing.ToomCook, width: int) -> Tensor:
    """One tile of outputs [C_out, tile] of x [C_in, n] from packed weights, all in float64 and by the definition."""
    cout, cin, kernel = weight.shape
    packed = packing.pack_toom_cook(weight, scheme).reshape(-1, cin, 16)
    groups, rest = -(-kernel // scheme.group), kernel // scheme.group
    points = torch.tensor(scheme.points, dtype=torch.float64)
    n = len(points) + 1
    products = torch.zeros(n, cout, dtype=torch.float64)
    for q in range(n):
        count = groups if q < n - 1 else rest
        panels = packed[: width // 16 * count].reshape(width // 16, count, cin, 16)
        packed = packed[width // 16 * count :]
        taps = panels.permute(1, 2, 0, 3).flatten(2)[..., :cout]
        others = [p for i, p in enumerate(scheme.points) if i != q]
        row = torch.ones(1, dtype=torch.float64)
        for p in others:
            row = torch.nn.functional.pad(row, (1, 0)) - p * torch.nn.functional.pad(row, (0, 1))
        row = torch.nn.functional.pad(row, (0, n - len(row)))
        for g in range(count):
            window = x[:, scheme.tile * g : scheme.tile * g + n]
            products[q] += (window @ row) @ taps[g]
    assert packed.numel() == 0
    y = torch.stack([(products[:-1] * points[:, None] ** j).sum(0) for j in range(scheme.tile)], 1)
    y[:, -1] += products[-1]
    return y


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("kernel", [3, 5, 6, 7, 8, 9, 11, 13])
def test_packed_weights_mean_the_convolution(kernel: int, dtype: torch.dtype) -> None:
    scheme = packing.toom_cook(kernel, 48, dtype)
    assert scheme is not None
    weight = torch.randn(21, 5, kernel, dtype=torch.float64)
    x = torch.randn(5, 64, dtype=torch.float64)
    y = correlate(x, weight, scheme, 32)
    expected = torch.nn.functional.conv1d(x[None], weight)[0, :, : scheme.tile]
    torch.testing.assert_close(y, expected)


def test_short_kernels_and_half_panels_stay_direct() -> None:
    assert all(packing.toom_cook(k, 64) is None for k in (1, 2, 4))
    assert all(packing.toom_cook(k, 64, BF16) is None for k in (1, 2))
    assert all(packing.toom_cook(k, 8) is None for k in (3, 5, 7, 11))


def test_narrow_stages_stay_direct_in_bfloat16() -> None:
    assert packing.toom_cook(11, 16, BF16) is None
    assert packing.toom_cook(3, 32, BF16) is None
    assert packing.toom_cook(5, 17, BF16) is not None


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@QUICK
@given(
    channels=st.integers(1, 130),
    blocks=st.lists(st.tuples(KERNELS, st.lists(st.integers(1, 7), min_size=1, max_size=3)), min_size=1, max_size=3),
    depth=st.integers(1, 2),
    pad_mode=st.sampled_from(["zeros", "reflect", "causal"]),
    snakes=st.booleans(),
    steps=st.integers(1, 700),
    threads=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_stage_equals_its_meaning(
    dtype: torch.dtype,
    channels: int,
    blocks: list[tuple[int, list[int]]],
    depth: int,
    pad_mode: str,
    snakes: bool,
    steps: int,
    threads: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    rows = [(k, tuple(d for d in ds if (k - 1) * d % 2 == 0)) for k, ds in blocks]
    rows = [(k, ds) for k, ds in rows if ds and (depth == 1 or k % 2)] or [(3, (1,))]
    params = mrf_params(channels, tuple(k for k, _ in rows), tuple(ds for _, ds in rows), depth, pad_mode)
    params = cast(with_snakes(params) if snakes else params, dtype)
    if pad_mode == "reflect":
        steps += max(conv.padding // 2 for conv in params.convs())
    x = torch.randn(1, channels, steps).to(dtype)
    expected = mrf_ref(x.double(), double(params))
    before = torch.get_num_threads()
    results, direct = [], []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            results.append(mrf(x, params, backend="cpp"))
            with use_exact():
                direct.append(mrf(x, params, backend="cpp"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    assert torch.equal(*direct)
    allowed, allowed_direct = (1e-2, 5e-3) if dtype is BF16 else (2e-6, 1e-6)
    assert relative_l2(results[0], expected) < allowed
    assert relative_l2(direct[0], expected) < allowed_direct


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("channels", [16, 33, 128])
def test_many_strips(channels: int, depth: int, dtype: torch.dtype, nan_poison: None) -> None:
    params = cast(mrf_params(channels, (3, 5, 7, 11), ((1, 3, 5), (2, 6), (3, 12), (1, 5)), depth), dtype)
    expected = {1, 2, 3} if dtype is torch.float32 else {0} if channels == 16 else {2, 3, 4}
    assert set(OP.impls["cpp"].pack(params).schemes) == expected
    lengths = torch.tensor([4001, 3333, 1])
    x = torch.full((3, channels, 4001), torch.nan, dtype=dtype)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels, n)
    y = mrf(x, params, lengths, backend="cpp")
    for i, n in enumerate(lengths.tolist()):
        alone = mrf(x[i : i + 1, :, :n], params, backend="cpp")[0]
        assert torch.equal(y[i, :, :n], alone)
        assert not y[i, :, n:].any()
        meant = mrf_ref(x[i : i + 1, :, :n].double(), double(params))[0]
        assert relative_l2(alone, meant) < (1e-2 if dtype is BF16 else 2e-6)


def test_a_changed_step_changes_nothing_far_away() -> None:
    params = mrf_params(24, (3, 7), ((1, 3), (1, 5)), 2)
    x = torch.randn(1, 24, 3000)
    y = mrf(x, params, backend="cpp")
    x[0, :, 1500] += 1.0
    changed = (mrf(x, params, backend="cpp") != y).any(1).nonzero()[:, -1]
    reach = sum(conv.padding // 2 for layer in params.blocks[1] for conv in layer)
    tiles = sum(2 * 6 * conv.dilation for layer in params.blocks[1] for conv in layer)
    assert 1500 - reach - tiles <= changed.min() <= changed.max() <= 1500 + reach + tiles


def test_exact_convolves_directly_and_keeps_both_packings() -> None:
    model = HifiGan(HifiGanConfig(upsample_initial_channel=64)).requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5 * max(parameter[0].numel(), 9) ** -0.5)
    mel = torch.randn(1, 80, 20)
    default = model(mel, backend="cpp")
    with use_exact():
        exact = model(mel, backend="cpp")
        with use_exact(False):
            assert torch.equal(model(mel, backend="cpp"), default)
    assert not torch.equal(default, exact)
    meant = model.double()(mel.double(), backend="torch")
    assert relative_l2(exact, meant) < 2e-6
    assert relative_l2(default, meant) < 5e-6


def _schemes(params: MrfParams) -> list[int]:
    packed = OP.impls["cpp"].pack(params)
    return list(packed.schemes)


def test_the_longer_tile_is_taken_in_bfloat16_where_it_saves_most() -> None:
    tiles = {k: scheme.tile for k in range(3, 14) if (scheme := packing.toom_cook(k, 64, BF16)) is not None}
    assert packing.toom_cook(11, 64, BF16, smooth=False) == packing.toom_cook(3, 64, BF16)
    assert tiles == {3: 3, 4: 4, 5: 4, 6: 3, 7: 4, 8: 4, 9: 3, 10: 4, 11: 4, 12: 4, 13: 4}


def test_tiles_that_do_not_fit_the_output_stay_direct() -> None:
    assert _schemes(mrf_params(16, (7,), ((7, 7),), 1)) == [3, 0]
    assert _schemes(mrf_params(16, (7,), ((7, 5),), 1)) == [3, 3]
    assert _schemes(cast(mrf_params(48, (5,), ((7, 7),), 1), BF16)) == [2, 0]
    assert _schemes(cast(mrf_params(48, (5,), ((7, 12),), 1), BF16)) == [2, 2]
    assert _schemes(cast(mrf_params(48, (3,), ((7, 7),), 1), BF16)) == [4, 0]
    assert _schemes(cast(mrf_params(48, (7,), ((7, 7),), 1), BF16)) == [3, 0]
    assert _schemes(cast(mrf_params(48, (7,), ((7, 12),), 1), BF16)) == [3, 3]
