"""What the tests of the Triton kernels run: an op, its meaning, parameters, and inputs of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from op_cases import (
    ATTENTION,
    CONV1D,
    DEPTHWISE,
    MRF,
    SNAKE_AA,
    UPSAMPLE,
    block_params,
    channels,
    depthwise_params,
    norm_params,
    random_snake,
)
from torch import Tensor

from fastvoc.ops.activation import IDENTITY, Activation, elu, leaky_relu
from fastvoc.ops.adain import AdaInParams, adain, adain_ref
from fastvoc.ops.attention_block import attention_block, attention_block_ref
from fastvoc.ops.conv1d import Conv1dParams, conv1d, conv1d_ref
from fastvoc.ops.conv2d import Conv2dParams, conv2d, conv2d_ref
from fastvoc.ops.convnext_block import convnext_block, convnext_block_ref
from fastvoc.ops.depthwise import depthwise, depthwise_ref
from fastvoc.ops.group_norm_act import GroupNormParams, group_norm_act, group_norm_act_ref
from fastvoc.ops.istft_head import IstftHeadParams, istft_head, istft_head_ref
from fastvoc.ops.layer_norm import layer_norm, layer_norm_ref
from fastvoc.ops.lvc import LvcParams, lvc, lvc_ref
from fastvoc.ops.mrf import mrf, mrf_ref
from fastvoc.ops.nsf_source import NsfSourceParams, nsf_source, nsf_source_ref
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode, rvq_decode_ref
from fastvoc.ops.rvq_encode import rvq_encode, rvq_encode_ref
from fastvoc.ops.seanet_block import SeanetBlockParams, seanet_block, seanet_block_ref
from fastvoc.ops.snake_aa import snake_aa, snake_aa_ref
from fastvoc.ops.square_conv import SquareConvParams, square_conv, square_conv_ref
from fastvoc.ops.stft import StftParams, stft, stft_ref
from fastvoc.ops.upsample import upsample, upsample_ref


def _nothing(batch: int, steps: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Case:
    """`lengths`: steps to try, shortest first. `extra(batch, steps)` draws the op's further arguments by name."""

    op: Callable[..., Tensor]
    ref: Callable[..., Tensor]
    params: Any
    lengths: tuple[int, int]
    draw: Callable[[int, int], Tensor]
    extra: Callable[[int, int], dict[str, Any]] = _nothing
    half: bool = True


def _signal(count: int) -> Callable[[int, int], Tensor]:
    return lambda batch, steps: torch.randn(batch, count, steps)


def _conv(make: Callable[[], Any], shortest: int = 1, residual: bool = False) -> Callable[[], Case]:
    def case() -> Case:
        params = make()

        def extra(batch: int, steps: int) -> dict[str, Any]:
            made = params.output_length(steps)
            return {"residual": torch.randn(batch, params.weight.shape[0], made)} if residual else {}

        return Case(conv1d, conv1d_ref, params, (shortest, 51), _signal(channels(params)), extra)

    return case


def _plain(
    op: Callable[..., Tensor], ref: Callable[..., Tensor], make: Callable[[], Any], *lengths: int
) -> Callable[[], Case]:
    def case() -> Case:
        params = make()
        return Case(op, ref, params, (lengths[0], lengths[1]), _signal(channels(params)))

    return case


_SHORTEST = {
    "stride-3": 4,
    "reflect": 7,
    "reflect-stride": 4,
    "reflect-past-the-kernel": 14,
    "source-k30-s15": 16,
    "codec-k16-s8": 9,
    "wide": 4,
}

CASES: dict[str, Callable[[], Case]] = {
    **{
        f"conv1d-{name}": _conv(make, _SHORTEST.get(name, 1), residual=name in ("dilated", "stride-3", "elu"))
        for name, make in CONV1D.items()
    },
    **{f"upsample-{name}": _plain(upsample, upsample_ref, make, 1, 43) for name, make in UPSAMPLE.items()},
    **{
        f"mrf-{name}": _plain(mrf, mrf_ref, make, 10 if name == "reflect" else 2, 35)
        for name, make in MRF.items()
        # As snake-causal and odd-channels, but larger; what depthwise convolutions on a GPU do not pad.
        if name not in ("causal", "v2-narrow", "v1", "snake", "depthwise-causal", "depthwise-reflect")
    },
    "mrf-ragged": lambda: replace(
        _plain(mrf, mrf_ref, MRF["v3"], 2, 35)(),
        params=replace(p := MRF["v3"](), blocks=(p.blocks[0], p.blocks[1][:1], p.blocks[2], p.blocks[2][:1])),
    ),
}


WIDE = {"wide": lambda: replace(depthwise_params(100, 7, 27), pre=random_snake(100))}  # seven of the small tiles


def _with_rows(case: Case, rows: int) -> Case:
    return replace(case, extra=lambda batch, steps: {"row": torch.arange(batch) * 2 % rows})


def _layer_norm(count: int) -> Callable[[], Case]:
    return lambda: Case(layer_norm, layer_norm_ref, norm_params(count), (1, 21), _signal(count))


def _block(count: int, hidden: int, kernel: int = 7, rows: int | None = None) -> Case:
    return Case(convnext_block, convnext_block_ref, block_params(count, hidden, kernel, rows), (1, 37), _signal(count))


def _istft(n_fft: int, hop: int, shortest: int, **options: Any) -> Callable[[], Case]:
    def case() -> Case:
        params = IstftHeadParams(n_fft, hop, torch.hann_window(n_fft), **options)
        rows = n_fft // 2 + 1

        def draw(batch: int, steps: int) -> Tensor:
            return torch.cat([torch.randn(batch, rows, steps), torch.randn(batch, rows, steps) * 3], 1)

        return Case(istft_head, istft_head_ref, params, (shortest, 21), draw, half=False)

    return case


def _stft(n_fft: int, hop: int, longest: int) -> Callable[[], Case]:
    def case() -> Case:
        params = StftParams(n_fft, hop, torch.hann_window(n_fft))
        return Case(stft, stft_ref, params, (n_fft // 2 + 1, longest), _signal(1), half=False)

    return case


def _source(kind: Any, hop: int, harmonics: int, noise: Any = "none", injected: bool = False) -> Callable[[], Case]:
    def case() -> Case:
        weight = torch.randn(harmonics + 1)
        params = NsfSourceParams(weight, torch.randn(1) * 0.1, 24000, hop, kind, noise=noise)

        def draw(batch: int, steps: int) -> Tensor:
            f0 = 80 + 400 * torch.rand(batch, 1, steps)
            f0[torch.rand(batch, 1, steps) < 0.2] = 0
            return f0

        def extra(batch: int, steps: int) -> dict[str, Any]:
            given: dict[str, Any] = {"seed": torch.arange(batch) - 1}
            if injected:
                given["noise"] = torch.randn(batch, harmonics + 1, steps * hop)
                given["phase"] = torch.randn(batch, harmonics + 1) * 3
            return given

        return Case(nsf_source, nsf_source_ref, params, (1, 13), draw, extra, half=False)

    return case


def _rvq(books: int, entries: int, dim: int) -> RvqParams:
    return RvqParams(torch.randn(books, entries, dim))


def _decode(books: int, entries: int, dim: int) -> Callable[[], Case]:
    def draw(batch: int, steps: int) -> Tensor:
        return torch.randint(0, entries, (batch, books - 1, steps))

    return lambda: Case(rvq_decode, rvq_decode_ref, _rvq(books, entries, dim), (1, 21), draw)


def _encode(books: int, entries: int, dim: int) -> Callable[[], Case]:
    def extra(batch: int, steps: int) -> dict[str, Any]:
        return {"n_q": books - 1}

    return lambda: Case(rvq_encode, rvq_encode_ref, _rvq(books, entries, dim), (1, 21), _signal(dim), extra, half=False)


def _group_norm(count: int, act: Activation = IDENTITY, residual: bool = False) -> Callable[[], Case]:
    def case() -> Case:
        params = GroupNormParams(torch.randn(count) + 1, torch.randn(count), 0.01, act)

        def extra(batch: int, steps: int) -> dict[str, Any]:
            return {"residual": torch.randn(batch, count, steps)} if residual else {}

        return Case(group_norm_act, group_norm_act_ref, params, (2, 77), _signal(count), extra)

    return case


def _adain(count: int, act: Activation = IDENTITY) -> Callable[[], Case]:
    def case() -> Case:
        params = AdaInParams(torch.randn(count) + 1, torch.randn(count), 0.01, act)

        def extra(batch: int, steps: int) -> dict[str, Any]:
            return {"style": torch.randn(batch, 2 * count, 1)}

        return Case(adain, adain_ref, params, (2, 77), _signal(count), extra)

    return case


def _seanet(
    count: int, hidden: int, kernel: int, pad: tuple[int, int], dilation: int = 1, *, norms: bool = False, **change: Any
) -> Callable[[], Case]:
    def conv(cin: int, cout: int, kernel: int, pad: tuple[int, int], dilation: int) -> Conv1dParams:
        weight = torch.randn(cout, cin, kernel) / (cin * kernel) ** 0.5
        return Conv1dParams(weight, torch.randn(cout) * 0.3, 1, dilation, pad, "reflect", elu())

    def case() -> Case:
        shortcut = Conv1dParams(torch.randn(count, count, 1) / count**0.5, torch.randn(count))
        first, second = conv(count, hidden, kernel, pad, dilation), conv(hidden, count, 1, (0, 0), 1)
        params = replace(SeanetBlockParams(first, second, shortcut), **change)
        if norms:
            names = ("norm1", "norm2", "norm_shortcut")
            made = [GroupNormParams(torch.randn(n) + 1, torch.randn(n), 0.01) for n in (hidden, count, count)]
            params = replace(params, **dict(zip(names, made, strict=True)))
        return Case(seanet_block, seanet_block_ref, params, (2, 51), _signal(count))

    return case


def _lvc(cin: int, cout: int, taps: int, hop: int, gated: bool = True) -> Callable[[], Case]:
    """Its kernels and biases come step by step, so that they are cut as the signal is; the op sees one of each hop."""

    def by_frame(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, params: LvcParams, kernels: Tensor, biases: Tensor, *args: Any, **options: Any) -> Tensor:
            return call(x, params, kernels[..., ::hop], biases[..., ::hop], *args, **options)

        return run

    def extra(batch: int, steps: int) -> dict[str, Any]:
        kernels = torch.randn(batch, taps, cin, cout, steps) / (cin * taps) ** 0.5
        made = cout // 2 if gated else cout
        residual = {"residual": torch.randn(batch, made, steps)} if gated else {}
        return {"kernels": kernels, "biases": torch.randn(batch, cout, steps), **residual}

    params = LvcParams(hop, taps, gated)
    return lambda: Case(by_frame(lvc), by_frame(lvc_ref), params, (hop, 36), _signal(cin), extra)


def _conv2d(cin: int, cout: int, kernel: tuple[int, int], bands: int, slope: float, pool: int) -> Callable[[], Case]:
    """Frequencies lie among the channels, so that the signal has three axes as others."""

    def flat(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def grid(rows: Tensor) -> Tensor:
            return rows.unflatten(1, (-1, bands)).transpose(2, 3)

        def run(x: Tensor, params: Conv2dParams, residual: Tensor | None = None, **options: Any) -> Tensor:
            y = call(grid(x), params, None if residual is None else grid(residual), **options)
            return y.transpose(2, 3).flatten(1, 2)

        return run

    def case() -> Case:
        weight = torch.randn(cout, cin, *kernel) / (cin * kernel[0] * kernel[1]) ** 0.5
        params = Conv2dParams(weight, torch.randn(cout), slope, pool)

        def extra(batch: int, steps: int) -> dict[str, Any]:
            return {"residual": torch.randn(batch, cout * bands, steps)} if pool == 1 else {}

        return Case(flat(conv2d), flat(conv2d_ref), params, (1, 13), _signal(cin * bands), extra)

    return case


CASES |= {
    "lvc-odd": _lvc(5, 14, 5, 3),
    "lvc-plain": _lvc(17, 21, 3, 9, gated=False),
    "lvc-published": _lvc(32, 64, 3, 9),
    "conv2d-first": _conv2d(1, 20, (3, 3), 7, 0.01, 2),
    "conv2d-residual": _conv2d(19, 37, (3, 3), 5, 0.2, 1),
    "conv2d-tall": _conv2d(35, 5, (5, 1), 9, 1.0, 4),
    **{f"snake_aa-{name}": _plain(snake_aa, snake_aa_ref, SNAKE_AA[name], 1, 45) for name in ("odd", "other-filter")},
    **{f"depthwise-{name}": _plain(depthwise, depthwise_ref, make, 1, 77) for name, make in (DEPTHWISE | WIDE).items()},
    "layer_norm-odd": _layer_norm(37),
    "layer_norm-wide": _layer_norm(384),
    "layer_norm-adaptive": lambda: _with_rows(replace(_layer_norm(20)(), params=norm_params(20, 4)), 4),
    "convnext_block-odd": lambda: _block(37, 101),
    "convnext_block-adaptive": lambda: _with_rows(_block(24, 72, 5, rows=3), 3),
    "istft_head-hift": _istft(16, 4, 4, clip=1e2, phase="sin", clamp=0.99),
    "istft_head-same": _istft(64, 16, 1, padding="same", clip=1e2),
    "istft_head-hop-no-divisor": _istft(20, 6, 3, padding="same"),
    "stft-hift": _stft(16, 4, 403),
    "stft-odd": _stft(50, 7, 401),
    "nsf_source-sample": _source("sample", 24, 8, injected=True),
    "nsf_source-drawn": _source("sample", 5, 5, noise="normal"),
    "nsf_source-linear": _source("frame_linear", 12, 2, noise="uniform"),
    "nsf_source-nearest": _source("frame_nearest", 7, 8),
    "rvq_decode-odd": _decode(5, 33, 21),
    "rvq_encode-odd": _encode(4, 50, 21),
    "rvq_encode": _encode(3, 1024, 128),
    "square_conv": lambda: Case(
        square_conv,
        square_conv_ref,
        SquareConvParams(torch.randn(19, 19, 5) / 10, torch.randn(19), 3),
        (1, 77),
        _signal(19),
        lambda batch, steps: {"residual": torch.randn(batch, 19, steps)},
    ),
    "adain-odd": _adain(37, leaky_relu(0.2)),
    "adain-snake": lambda: _adain(16, random_snake(16))(),
    "group_norm_act-odd": _group_norm(13, elu(), residual=True),
    "group_norm_act-snake": lambda: _group_norm(24, random_snake(24))(),
    "seanet_block-causal": _seanet(32, 16, 3, (2, 0)),
    "seanet_block-dilated": _seanet(20, 10, 4, (5, 4), 3),
    "seanet_block-identity": _seanet(21, 9, 3, (1, 1), shortcut=None),
    "seanet_block-normed": _seanet(27, 13, 4, (5, 4), 3, norms=True),
}


def _attention(name: str) -> Callable[[], Case]:
    # In half precision it rounds between its launches, which the reference does not: tests/ops/test_attention_block.py.
    return lambda: replace(_plain(attention_block, attention_block_ref, ATTENTION[name], 1, 27)(), half=False)


CASES |= {f"attention_block-{name}": _attention(name) for name in ("odd", "panels", "shared-keys")}


@contextmanager
def places_alike() -> Iterator[None]:
    """Products that do not depend on a row's place in its tile, as on a GPU: the interpreter's BLAS has that bit.

    Sums are taken in float64 and rounded once.
    """
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def create_dot(_: Any, a: Any, b: Any, d: Any, *__: Any) -> Any:
        total = np.matmul(a.data.astype(np.float64), b.data.astype(np.float64)) + d.data
        return TensorHandle(total.astype(d.data.dtype), d.dtype.scalar)

    with mock.patch.object(InterpreterBuilder, "create_dot", create_dot):
        yield


@contextmanager
def rounding() -> Iterator[None]:
    """float32 to bfloat16 by rounding to the nearest, as on a GPU; the interpreter cuts it off and doubles errors."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    inner = InterpreterBuilder.cast_impl

    def cast_impl(builder: Any, src: Any, dst_type: Any) -> Any:
        if src.dtype.scalar != tl.float32 or dst_type.scalar != tl.bfloat16:
            return inner(builder, src, dst_type)
        narrow = torch.from_numpy(np.ascontiguousarray(src.data)).bfloat16()
        return TensorHandle(narrow.view(torch.int16).numpy().view(np.uint16), dst_type.scalar)

    # Bound by name when the class was made.
    casts = dict.fromkeys(("cast_impl", "create_fp_trunc"), cast_impl)
    with mock.patch.multiple(InterpreterBuilder, **casts):
        yield


@contextmanager
def small_tiles() -> Iterator[None]:
    """Tiles so small that short signals fill several, and none exactly."""
    from fastvoc.kernels import tuned

    with ExitStack() as stack:
        stack.enter_context(tuned.override(**_SMALL))
        yield


_SMALL: dict[str, dict[str, int]] = {
    "attention_block": {"BT": 16, "BN": 16},
    "conv1d": {"BT": 32, "BN": 32, "BK": 64},
    "depthwise": {"BT": 32, "BN": 16},
    "mrf": {"BT": 32, "BK": 32, "FUSE": 1},
    "layer_norm": {"BT": 8},
    "istft_head": {"BT": 16, "BN": 16, "BK": 32},
    "stft": {"BT": 32, "BN": 16, "BK": 32},
    "nsf_source": {"BT": 64, "BF": 4},
    "rvq_decode": {"BT": 8},
    "rvq_encode": {"BT": 16, "BN": 512},
    "snake_aa": {"BT": 32, "BN": 16},
    "adain": {"BT": 16, "BN": 16, "BS": 4},
    "group_norm_act": {"BT": 16, "BS": 4},
    "lvc": {"BT": 16, "BN": 16, "BK": 16},
    "conv2d": {"BT": 32, "BN": 16, "BK": 16},
    "seanet_block": {"BT": 32, "BN": 16, "BK": 16},
}

# Those in which every op that streams runs in chunks.
STREAMED = (
    "conv1d-dilated",
    "conv1d-stride-3",
    "conv1d-reflect",
    "depthwise-snake-odd",
    "upsample-k4-s2",
    "upsample-k11-s5",
    "mrf-one-block",
    "mrf-snake-causal",
    "layer_norm-odd",
    "layer_norm-adaptive",
    "convnext_block-odd",
    "convnext_block-adaptive",
    "istft_head-hift",
    "istft_head-hop-no-divisor",
    "stft-hift",
    "seanet_block-causal",
    "seanet_block-dilated",
    "seanet_block-identity",
    "snake_aa-odd",
    "nsf_source-linear",
)
