"""The CUDA kernels of transforms, norms, blocks and quantisers, compiled as plain C++, against the ops' meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from cuda_emulation import DTYPES, RUN
from op_cases import block_params, cast, conv1d_params, double, norm_params, random_snake, strided
from torch import Tensor

from fastvoc.ops.activation import elu, leaky_relu
from fastvoc.ops.adain import AdaInParams, adain_ref
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.convnext_block import convnext_block_ref
from fastvoc.ops.group_norm_act import GroupNormParams, group_norm_act_ref
from fastvoc.ops.layer_norm import layer_norm_ref
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode_ref
from fastvoc.ops.rvq_encode import rvq_encode_ref
from fastvoc.ops.seanet_block import SeanetBlockParams, seanet_block_ref
from fastvoc.ops.stft import StftParams, stft_ref
from fastvoc.runtime.registry import OPS
from helpers import assert_golden, golden, relative_l2

ROUNDING = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
MEANING: dict[str, Callable[..., Tensor]] = {
    "adain": adain_ref,
    "convnext_block": convnext_block_ref,
    "group_norm_act": group_norm_act_ref,
    "layer_norm": layer_norm_ref,
    "seanet_block": seanet_block_ref,
    "stft": stft_ref,
}


def group(channels: int, **options: Any) -> GroupNormParams:
    return GroupNormParams(torch.randn(channels) + 1, torch.randn(channels), **{"eps": 0.01, **options})


def adaptive(channels: int, **options: Any) -> AdaInParams:
    return AdaInParams(torch.randn(channels) + 1, torch.randn(channels), **{"eps": 0.01, **options})


def seanet(
    channels: int, hidden: int, kernel: int = 3, pad: tuple[int, int] = (2, 0), dilation: int = 1
) -> SeanetBlockParams:
    conv1 = conv1d_params(channels, hidden, kernel, dilation=dilation, pad=pad)
    conv1 = replace(conv1, pad_mode="reflect", pre=elu())
    conv2 = replace(conv1d_params(hidden, channels, 1, pad=(0, 0)), pre=elu())
    shortcut = Conv1dParams(torch.randn(channels, channels, 1) / channels**0.5, torch.randn(channels))
    return SeanetBlockParams(conv1, conv2, shortcut)


def normed(params: SeanetBlockParams) -> SeanetBlockParams:
    hidden, channels = params.conv1.weight.shape[:2]
    beside = None if params.shortcut is None else group(channels, eps=1e-3)
    return replace(params, norm1=group(hidden, eps=1e-5), norm2=group(channels, eps=1e-4), norm_shortcut=beside)


@dataclass(frozen=True)
class Case:
    """An op's parameters, the channels of its input, and whether it takes rows of a norm or an addend."""

    op: str
    make: Callable[[], Any]
    channels: int
    rows: int = 0
    adds: bool = False

    def pack(self, params: Any) -> Any:
        return OPS[self.op].impls["cuda"].pack(params)

    def further(self, x: Tensor) -> list[Tensor | None]:
        """What comes between x and the lengths."""
        if self.op in ("layer_norm", "convnext_block"):
            return [torch.randint(self.rows, (len(x),)) if self.rows else None]
        if self.op == "adain":
            return [torch.randn(len(x), 2 * self.channels, 1)]
        return [torch.randn(x.shape).to(x.dtype) if self.adds else None] if self.op == "group_norm_act" else []


CASES = {
    "norm": Case("layer_norm", lambda: norm_params(64), 64),
    "norm-odd": Case("layer_norm", lambda: norm_params(37, 3), 37, rows=3),
    "norm-narrow": Case("layer_norm", lambda: norm_params(3), 3),
    "convnext": Case("convnext_block", lambda: block_params(64, 96), 64),
    "convnext-odd": Case("convnext_block", lambda: block_params(37, 101, 3, rows=2), 37, rows=2),
    "convnext-narrow": Case("convnext_block", lambda: block_params(1, 5), 1),
    "convnext-no-gamma": Case("convnext_block", lambda: replace(block_params(18, 33, 1), gamma=None), 18),
    "group": Case("group_norm_act", lambda: group(16), 16),
    "group-elu": Case("group_norm_act", lambda: group(33, act=elu()), 33, adds=True),
    "group-snake": Case("group_norm_act", lambda: group(5, act=random_snake(5)), 5, adds=True),
    "group-one": Case("group_norm_act", lambda: group(1, act=leaky_relu(0.3)), 1),
    "adain": Case("adain", lambda: adaptive(48), 48),
    "adain-leaky": Case("adain", lambda: adaptive(33, act=leaky_relu(0.2)), 33),
    "adain-snake": Case("adain", lambda: adaptive(5, act=random_snake(5)), 5),
    "seanet": Case("seanet_block", lambda: seanet(32, 16), 32),
    "seanet-odd": Case("seanet_block", lambda: seanet(27, 13, 4, (5, 4), 3), 27),
    "seanet-wide": Case("seanet_block", lambda: seanet(70, 37, 7, (3, 3)), 70),
    "seanet-identity": Case("seanet_block", lambda: replace(seanet(21, 17), shortcut=None), 21),
    "seanet-normed": Case("seanet_block", lambda: normed(seanet(32, 18, pad=(1, 1))), 32),
    "seanet-normed-identity": Case("seanet_block", lambda: normed(replace(seanet(21, 9), shortcut=None)), 21),
    "stft": Case("stft", lambda: StftParams(16, 4, torch.hann_window(16)), 1),
    "stft-hop-no-divisor": Case("stft", lambda: StftParams(20, 6, torch.rand(20)), 1),
    "stft-two": Case("stft", lambda: StftParams(2, 1, torch.rand(2)), 1),
    "stft-odd-half": Case("stft", lambda: StftParams(50, 7, torch.hann_window(50)), 1),
    "stft-same": Case("stft", lambda: StftParams(20, 6, torch.rand(20), padding="same"), 1),
    "stft-whole": Case("stft", lambda: StftParams(20, 6, torch.rand(20), padding="none"), 1),
    "stft-1024": Case("stft", lambda: StftParams(1024, 256, torch.hann_window(1024)), 1),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def lengths_for(case: Case, params: Any) -> list[int]:
    """Odd ones, and the shortest that the op takes."""
    if case.op == "stft":
        return [params.side + 1 if params.side else params.n_fft, params.n_fft, 3 * params.n_fft + 41]
    if case.op == "adain":
        return [1, 2, 61, 600, 1300]
    return [1, 2, 13, 61, 300] if case.op == "group_norm_act" else [1, 3, 37, 141]


@each_dtype
@each_case
def test_equals_its_meaning(case: Case, dtype: torch.dtype) -> None:
    params = cast(case.make(), dtype)
    packed = case.pack(params)
    for steps in lengths_for(case, params):
        x = torch.randn(2, case.channels, steps).to(dtype)
        further = case.further(x)
        y = RUN[case.op](x, packed, *further)
        meant = MEANING[case.op](x.double(), double(params), *cast(tuple(further), torch.float64))
        assert relative_l2(y, meant) < ROUNDING[dtype], steps


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@each_case
def test_ragged_batch_equals_single_items_in_any_layout(case: Case, dtype: torch.dtype) -> None:
    params = cast(case.make(), dtype)
    packed = case.pack(params)
    lengths = torch.tensor([lengths_for(case, params)[i] for i in (-2, -1, 0)])
    x = torch.full((3, case.channels, int(lengths.max())), torch.nan, dtype=dtype)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(case.channels, n)
    further = case.further(x)
    results = [RUN[case.op](view, packed, *further, lengths) for view in strided(x).values()]
    for y in results[1:]:
        assert torch.equal(y, results[0])
    for i, n in enumerate(lengths.tolist()):
        rest = [t if t is None else t[i : i + 1, ..., :n] if t.dim() > 1 else t[i : i + 1] for t in further]
        alone = RUN[case.op](x[i : i + 1, :, :n], packed, *rest)
        assert torch.equal(results[0][i, :, : alone.shape[2]], alone[0])
        assert not results[0][i, :, alone.shape[2] :].any()


def test_blocks_use_tensor_cores_where_they_can() -> None:
    def tiles(params: Any, op: str) -> bool:
        return bool(OPS[op].impls["cuda"].pack(params).tiles)

    for dtype in DTYPES:
        half = dtype is not torch.float32
        assert tiles(cast(block_params(64, 96), dtype), "convnext_block") == half
        assert tiles(cast(seanet(32, 16), dtype), "seanet_block") == half
    assert not tiles(cast(seanet(27, 13), torch.bfloat16), "seanet_block")


def test_short_signals_reflect_with_zeros_appended() -> None:
    for dtype in (torch.float32, torch.float16):
        params = cast(seanet(20, 16, 3, (10, 0), 5), dtype)
        packed = OPS["seanet_block"].impls["cuda"].pack(params)
        for steps in (1, 2, 7, 10, 11, 12):
            x = torch.randn(1, 20, steps).to(dtype)
            y = RUN["seanet_block"](x, packed)
            assert relative_l2(y, seanet_block_ref(x.double(), double(params))) < ROUNDING[dtype], steps


def test_norms_of_large_means_and_of_many_pieces() -> None:
    params = group(24)
    packed = OPS["group_norm_act"].impls["cuda"].pack(params)
    x = torch.randn(1, 24, 3000) + 1000
    assert relative_l2(RUN["group_norm_act"](x, packed), group_norm_act_ref(x.double(), double(params))) < 5e-6
    flat = RUN["group_norm_act"](torch.full((1, 24, 31), 2.5), packed)
    torch.testing.assert_close(flat[0], params.bias[:, None].expand(-1, 31))
    quiet, plain = torch.randn(1, 37, 20) * 1e-3, norm_params(37)
    y = RUN["layer_norm"](quiet, OPS["layer_norm"].impls["cuda"].pack(plain))
    assert relative_l2(y, layer_norm_ref(quiet.double(), double(plain))) < 1e-6


def polar(n_fft: int, hop: int, window: Tensor | None = None) -> StftParams:
    return StftParams(n_fft, hop, torch.hann_window(n_fft) if window is None else window, "polar")


def transform(x: Tensor, params: StftParams) -> Tensor:
    return RUN["stft"](x, OPS["stft"].impls["cuda"].pack(params))


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (20, 5), (2, 1), (320, 80)])
def test_stft_in_magnitude_and_angle(n_fft: int, hop: int) -> None:
    params = polar(n_fft, hop)
    x = torch.randn(2, 1, 7 * n_fft + 3)
    magnitude, angle = transform(x, params).double().chunk(2, 1)
    wide = stft_ref(x.double(), replace(params, window=params.window.double(), features="complex"))
    assert relative_l2(torch.cat([magnitude * angle.cos(), magnitude * angle.sin()], 1), wide) < 2e-6
    real = torch.cat([angle[:, 0].flatten(), angle[:, -1].flatten(), angle[:, :, 0].flatten()])
    assert set(real.float().tolist()) == {0.0, torch.tensor(torch.pi).item()}
    silence = transform(torch.zeros(1, 1, 100 + n_fft), params)
    assert torch.equal(silence, torch.zeros_like(silence))


def test_stft_of_a_skewed_window_has_a_complex_first_frame() -> None:
    angle = transform(torch.randn(1, 1, 400), polar(16, 4, torch.rand(16) + 0.1))[:, 9:]
    assert angle[:, 1:8, 0].abs().min() > 0


@pytest.mark.golden
def test_stft_golden() -> None:
    data = golden("cosyvoice2_hift")
    source = data.inputs["source"] if "source" in data.inputs else data.outputs["source"]
    params = StftParams(16, 4, torch.hann_window(16))
    assert_golden(transform(source, params)[:, :, :600], data, "mid.source_stft")
    data = golden("hiftnet_original")
    magnitude, angle = transform(data.inputs["source"][:, None], polar(16, 4)).chunk(2, 1)
    assert_golden(magnitude, data, "mid.har_magnitude")
    assert_golden(angle, data, "mid.har_phase")


def encode(x: Tensor, books: Tensor, n_q: int, lengths: Tensor | None = None) -> Tensor:
    return RUN["rvq_encode"](x, OPS["rvq_encode"].impls["cuda"].pack(RvqParams(books)), n_q, lengths)


@pytest.mark.parametrize("size", [(4, 300, 33), (3, 37, 19), (2, 1, 5), (2, 50, 1)], ids=str)
def test_rvq_encode_takes_the_nearest_entry(size: tuple[int, int, int]) -> None:
    books = torch.randn(size) * 0.7 ** torch.arange(size[0])[:, None, None]
    x, lengths = torch.full((3, size[2], 25), torch.nan), torch.tensor([25, 8, 1])
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(size[2], n)
    codes = encode(x, books, size[0], lengths)
    for view in strided(x).values():
        assert torch.equal(encode(view, books, size[0], lengths), codes)
    for i, n in enumerate(lengths.tolist()):
        item = x[i : i + 1, :, :n]
        assert torch.equal(codes[i, :, :n], encode(item, books, size[0])[0])
        assert not codes[i, :, n:].any()
        left = item.double().transpose(1, 2)[0]
        for book, index in zip(books.double(), codes[i, :, :n], strict=True):
            distance = (left[:, None] - book).square().sum(-1)
            excess = distance.gather(1, index[:, None])[:, 0] - distance.amin(1)
            assert (excess <= 1e-6 * (left.square().sum(1) + book.square().sum(1).max())).all()
            left = left - book[index]


def test_rvq_encode_recovers_codes_and_the_first_of_equals_wins() -> None:
    grid = torch.stack([torch.randperm(300) for _ in range(7)], 1).float() - 150
    books = torch.stack([grid, grid / 1200])
    codes = torch.randint(300, (2, 2, 13))
    assert torch.equal(encode(rvq_decode_ref(codes, RvqParams(books)), books, 2), codes)
    assert torch.equal(encode(rvq_decode_ref(codes, RvqParams(books)), books, 1), codes[:, :1])
    book = torch.randn(1, 700, 24)
    book[0, 400:] = book[0, 50:350]
    assert encode(book[0, 400:450].t()[None], book, 1).flatten().tolist() == list(range(50, 100))
    offsets, small = torch.randint(-3, 4, (1, 4, 50)) * 64.0 + 4096.0, torch.randint(-3, 4, (1, 64, 4)).float()
    assert torch.equal(encode(offsets, small, 1), rvq_encode_ref(offsets, RvqParams(small), 1))
    offsets[0, 1, 7] = torch.nan
    assert 0 <= int(encode(offsets, small, 1)[0, 0, 7]) < 64
