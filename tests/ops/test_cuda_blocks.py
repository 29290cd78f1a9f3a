"""The CUDA kernels of transforms, norms, blocks and quantisers, compiled as plain C++, against the ops' meaning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cuda_emulation import DTYPES, RUN
from op_cases import block_params, cast, double, norm_params, strided
from op_contract import group_norm_params, seanet_params
from torch import Tensor

from fastvoc.ops.group_norm_act import group_norm_act_ref
from fastvoc.ops.layer_norm import layer_norm_ref
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode_ref
from fastvoc.ops.rvq_encode import rvq_encode_ref
from fastvoc.ops.seanet_block import seanet_block_ref
from fastvoc.ops.stft import StftParams, stft_ref
from fastvoc.runtime.registry import OPS
from helpers import assert_golden, golden, relative_l2

ROUNDING = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}


def test_blocks_use_tensor_cores_where_they_can() -> None:
    def tiles(params: Any, op: str) -> bool:
        return bool(OPS[op].impls["cuda"].pack(params).tiles)

    for dtype in DTYPES:
        half = dtype is not torch.float32
        assert tiles(cast(block_params(64, 96), dtype), "convnext_block") == half
        assert tiles(cast(seanet_params(32, 16), dtype), "seanet_block") == half
    assert not tiles(cast(seanet_params(27, 13), torch.bfloat16), "seanet_block")


def test_short_signals_reflect_with_zeros_appended() -> None:
    for dtype in (torch.float32, torch.float16):
        params = cast(seanet_params(20, 16, 3, (10, 0), 5), dtype)
        packed = OPS["seanet_block"].impls["cuda"].pack(params)
        for steps in (1, 2, 7, 10, 11, 12):
            x = torch.randn(1, 20, steps).to(dtype)
            y = RUN["seanet_block"](x, packed)
            assert relative_l2(y, seanet_block_ref(x.double(), double(params))) < ROUNDING[dtype], steps


def test_norms_of_large_means_and_of_many_pieces() -> None:
    params = group_norm_params(24)
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
