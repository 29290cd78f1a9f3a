"""What every op is held to by tests/ops/test_ops.py: cases of all of them, and their calls in batches of any form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from op_cases import (
    ATTENTION,
    CONV1D,
    DEPTHWISE,
    MRF,
    NARROW_MRF,
    SNAKE_AA,
    UPSAMPLE,
    block_params,
    channels,
    depthwise_params,
    double,
    norm_params,
    random_snake,
)
from torch import Tensor

from fastvoc.errors import ShapeError
from fastvoc.ops import (
    adain,
    attention_block,
    conv1d,
    conv2d,
    convnext_block,
    depthwise,
    group_norm_act,
    istft_head,
    layer_norm,
    lstm,
    lvc,
    mrf,
    nsf_source,
    rvq_decode,
    rvq_encode,
    seanet_block,
    snake_aa,
    square_conv,
    stft,
    upsample,
)
from fastvoc.ops.activation import IDENTITY, Activation, elu, leaky_relu
from fastvoc.runtime.registry import Op

LENGTHS = (1, 2, 3, 7, 13, 31, 64, 100, 257, 1000)
Inputs = tuple[Any, ...]


class Case(NamedTuple):
    """An op with parameters, and random inputs for them: of a batch of so many items of so many steps, without lengths.

    shapes: (batch, steps) of calls that are compared with the meaning: the reference in float64, or where that draws
    other numbers or may choose other codes (`drawn`) in float32; `close`: how near they must be. long: steps of an
    item that runs among others. fewest: steps that a check lets through, but torch does not.
    """

    op: Op
    make: Callable[[], Any]
    inputs: Callable[[Any, int, int], Inputs]
    shapes: tuple[tuple[int, int], ...] = tuple((2, steps) for steps in LENGTHS)
    close: float = 2e-6
    drawn: bool = False
    long: int = 777
    fewest: int = 1

    def meaning(self, params: Any, inputs: Inputs, lengths: Tensor | None = None) -> Tensor:
        """What a call ought to give."""
        if self.drawn:
            return self.op(*_called(params, inputs), lengths=lengths, backend="torch")
        wide = tuple(t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in inputs)
        return self.op.reference(*_called(double(params), wide), lengths=lengths)

    def __call__(self, params: Any, inputs: Inputs, backend: str, lengths: Tensor | None = None) -> Tensor:
        """A call."""
        return self.op(*_called(params, inputs), lengths=lengths, backend=backend)

    def least(self, params: Any) -> int:
        """The fewest steps that the op takes."""
        for steps in range(self.fewest, 1000):
            try:
                self.op.check(*_called(params, self.inputs(params, 1, steps)))
            except ShapeError:
                continue
            return steps
        raise AssertionError(f"{self.op.name} takes nothing")

    def batch(self, params: Any, items: Iterable[Inputs], steps: int) -> Inputs:
        """Items of any lengths as one batch of so many steps; NaN, or codes of no entry, lie behind shorter ones."""
        items = list(items)
        whole = self.inputs(params, len(items), steps)
        for t in filter(torch.is_tensor, whole):
            t.fill_(torch.nan if t.is_floating_point() else torch.iinfo(t.dtype).max)
        for i, item in enumerate(items):
            for t, part in zip(whole, item, strict=True):
                if isinstance(t, Tensor):
                    t[(i, *(slice(0, n) for n in part.shape[1:]))] = part[0]
        return whole


def _called(params: Any, inputs: Inputs) -> Inputs:
    return inputs[0], params, *inputs[1:]


def layouts(x: Tensor) -> list[Tensor]:
    """The same values in several memory layouts, the plain one first."""
    if x.dim() < 3:
        return [x]
    axes = list(range(1, x.dim()))
    orders = [[0, *axes[k:], *axes[:k]] for k in range(len(axes))] + [[*axes, 0]]
    views = [x.permute(o).contiguous().permute([o.index(axis) for axis in range(x.dim())]) for o in orders]
    wide = x.new_zeros((*x.shape[:-2], x.shape[-2] + 3, 2 * x.shape[-1] + 1))
    sliced = wide[..., 2 : 2 + x.shape[-2], 1::2]
    return [*views, sliced.copy_(x)]


def signal(params: Any, batch: int, steps: int) -> Inputs:
    """x alone."""
    return (torch.randn(batch, channels(params), steps),)


# Several tiles of a GPU's, and more steps apart than there are.
FAR = {
    "tiles": lambda: replace(depthwise_params(40, 9, 2), pre=random_snake(40)),
    "beyond": lambda: replace(depthwise_params(33, 3, 400), pre=random_snake(33)),
    "many-taps": lambda: depthwise_params(2, 201),
}


def lstm_params(inputs: int, hidden: int, layers: int = 1, *, skip: bool = False, both: bool = False) -> Any:
    rows, width = [], inputs
    for _ in range(layers):
        for _ in range(2 if both else 1):
            w_ih, w_hh = torch.randn(4 * hidden, width) / width**0.5, torch.randn(4 * hidden, hidden) / hidden**0.5
            rows.append((w_ih, w_hh, torch.randn(4 * hidden) * 0.3, torch.randn(4 * hidden) * 0.3))
        width = hidden * (2 if both else 1)
    return lstm.LstmParams(tuple(rows), skip, both)


LSTM = {
    "one-layer": lambda: lstm_params(12, 20),
    "two-skip": lambda: lstm_params(24, 24, 2, skip=True),
    "one-channel": lambda: lstm_params(1, 1, 3, skip=True),
    "odd": lambda: lstm_params(37, 19, 2),
    "wide": lambda: lstm_params(64, 128, 2),
    "encodec": lambda: lstm_params(512, 512, 2, skip=True),
    "both-ways": lambda: lstm_params(18, 33, 1, both=True),
    "both-ways-two-skip": lambda: lstm_params(22, 11, 2, skip=True, both=True),
}


def seanet_conv(cin: int, cout: int, kernel: int, pad: tuple[int, int], dilation: int = 1) -> conv1d.Conv1dParams:
    weight = torch.randn(cout, cin, kernel) / (cin * kernel) ** 0.5
    return conv1d.Conv1dParams(weight, torch.randn(cout) * 0.3, 1, dilation, pad, "reflect", elu())


def seanet_params(
    count: int, hidden: int, kernel: int = 3, pad: tuple[int, int] = (2, 0), dilation: int = 1
) -> seanet_block.SeanetBlockParams:
    shortcut = conv1d.Conv1dParams(torch.randn(count, count, 1) / count**0.5, torch.randn(count))
    convs = seanet_conv(count, hidden, kernel, pad, dilation), seanet_conv(hidden, count, 1, (0, 0))
    return seanet_block.SeanetBlockParams(*convs, shortcut)


def in_convs(params: seanet_block.SeanetBlockParams, *names: str, **changes: Any) -> seanet_block.SeanetBlockParams:
    """The same block with these convolutions changed."""
    return replace(params, **{name: replace(getattr(params, name), **changes) for name in names})


def normed(params: seanet_block.SeanetBlockParams) -> seanet_block.SeanetBlockParams:
    def norm(count: int) -> group_norm_act.GroupNormParams:
        return group_norm_act.GroupNormParams(torch.randn(count) + 1, torch.randn(count), 1e-5 * count)

    hidden, out = params.conv1.weight.shape[0], params.conv2.weight.shape[0]
    shortcut = None if params.shortcut is None else norm(out)
    return replace(params, norm1=norm(hidden), norm2=norm(out), norm_shortcut=shortcut)


SEANET: dict[str, Callable[[], seanet_block.SeanetBlockParams]] = {
    "causal": lambda: seanet_params(32, 16),
    "split": lambda: seanet_params(64, 32, pad=(1, 1)),
    "odd": lambda: seanet_params(27, 13),
    "narrow": lambda: seanet_params(2, 1, pad=(1, 1)),
    "wide": lambda: seanet_params(256, 128),
    "dilated": lambda: seanet_params(20, 10, 3, (10, 0), 5),
    "dilated-split": lambda: seanet_params(20, 10, 4, (5, 4), 3),
    "kernel-7": lambda: seanet_params(16, 24, 7, (3, 3)),
    "kernel-1": lambda: seanet_params(16, 8, 1, (0, 0)),
    "identity-shortcut": lambda: replace(seanet_params(21, 9), shortcut=None),
    "leaky": lambda: in_convs(seanet_params(12, 6), "conv1", "conv2", pre=leaky_relu(0.2)),
    "zeros": lambda: in_convs(seanet_params(12, 6), "conv1", pad_mode="zeros"),
    "no-bias": lambda: in_convs(seanet_params(24, 12), "conv1", "conv2", bias=None),
    "normed": lambda: normed(seanet_params(32, 16, pad=(1, 1))),
    "normed-odd": lambda: normed(seanet_params(27, 13, 4, (5, 4), 3)),
    "normed-identity": lambda: normed(replace(seanet_params(21, 9), shortcut=None)),
    "normed-wide": lambda: normed(seanet_params(128, 64, pad=(1, 1))),
}


def act_of(kind: str, count: int) -> Activation:
    acts = {"identity": IDENTITY, "elu": elu(), "leaky_relu": leaky_relu(0.2)}
    return random_snake(count) if kind == "snake" else acts[kind]


def adain_params(count: int, kind: str = "identity") -> adain.AdaInParams:
    return adain.AdaInParams(torch.randn(count), torch.randn(count), 0.01, act_of(kind, count))


def group_norm_params(count: int, kind: str = "identity") -> group_norm_act.GroupNormParams:
    return group_norm_act.GroupNormParams(torch.randn(count), torch.randn(count), 0.01, act_of(kind, count))


def styled(params: Any, batch: int, steps: int) -> Inputs:
    count = len(params.weight)
    return torch.randn(batch, count, steps) * 3 + 1, torch.randn(batch, 2 * count, 1)


def lifted(params: Any, batch: int, steps: int, *, added: bool) -> Inputs:
    """Signals that are not around zero, and what is added to them."""
    x = torch.randn(batch, len(params.weight), steps) * 3 + 1
    return (x, torch.randn_like(x)) if added else (x,)


CONVNEXT: dict[str, tuple[Op, Callable[[], Any]]] = {
    "norm-64": (layer_norm.OP, lambda: norm_params(64)),
    "norm-odd": (layer_norm.OP, lambda: norm_params(37)),
    "norm-narrow": (layer_norm.OP, lambda: norm_params(3)),
    "norm-adaptive": (layer_norm.OP, lambda: norm_params(20, 4)),
    "norm-one-row": (layer_norm.OP, lambda: norm_params(16, 1)),
    "block-64": (convnext_block.OP, lambda: block_params(64, 192)),
    "block-odd": (convnext_block.OP, lambda: block_params(37, 101, 3)),
    "block-narrow": (convnext_block.OP, lambda: block_params(1, 5)),
    "block-adaptive": (convnext_block.OP, lambda: block_params(48, 144, rows=4)),
    "block-chunks": (convnext_block.OP, lambda: block_params(24, 1037, rows=2)),
    "block-kernel-1": (convnext_block.OP, lambda: block_params(18, 30, 1)),
    "block-kernel-11": (convnext_block.OP, lambda: block_params(18, 30, 11)),
    "block-no-gamma": (convnext_block.OP, lambda: replace(block_params(16, 64), gamma=None)),
}


def with_row(params: Any, batch: int, steps: int) -> Inputs:
    """x, and a row of an adaptive norm for each item."""
    norm = params if isinstance(params, layer_norm.LayerNormParams) else params.norm
    x = torch.randn(batch, norm.weight.shape[-1], steps)
    return x, None if norm.rows is None else torch.randint(norm.rows, (batch,))


def conv2d_params(
    cin: int, cout: int, kernel: tuple[int, int] = (3, 3), *, slope: float = 1.0, pool: int = 1
) -> conv2d.Conv2dParams:
    weight = torch.randn(cout, cin, *kernel) / (cin * kernel[0] * kernel[1]) ** 0.5
    return conv2d.Conv2dParams(weight, torch.randn(cout), slope, pool)


# Parameters, and the frequencies of the input.
CONV2D: dict[str, tuple[Callable[[], conv2d.Conv2dParams], int]] = {
    "first": (lambda: conv2d_params(1, 64, slope=0.01), 80),
    "pooled": (lambda: conv2d_params(19, 37, slope=0.01, pool=2), 13),
    "shortcut": (lambda: conv2d_params(40, 48, (1, 1)), 10),
    "four": (lambda: conv2d_params(32, 21, slope=0.2, pool=4), 10),
    "three": (lambda: conv2d_params(9, 21, slope=0.2, pool=3), 23),
    "eleven": (lambda: conv2d_params(5, 17, (5, 1), slope=0.1, pool=11), 24),
    "tall": (lambda: conv2d_params(3, 5, (5, 1)), 7),
    "wide": (lambda: conv2d_params(6, 17, (1, 7)), 9),
    "one-band": (lambda: conv2d_params(33, 16), 1),
}


def planes(params: conv2d.Conv2dParams, batch: int, steps: int, *, bands: int, added: bool) -> Inputs:
    cout, cin = params.weight.shape[:2]
    x = torch.randn(batch, cin, steps, bands)
    return (x, torch.randn(batch, cout, steps, bands)) if added else (x,)


def square_params(count: int, kernel: int, dilation: int = 1) -> square_conv.SquareConvParams:
    weight = torch.randn(count, count, kernel) / (count * kernel) ** 0.5
    return square_conv.SquareConvParams(weight, torch.randn(count), dilation)


def own_kernels(params: lvc.LvcParams, batch: int, frames: int, *, cin: int, cout: int) -> Inputs:
    """x, kernels, biases, residual."""
    made = cout // 2 if params.gated else cout
    kernels = torch.randn(batch, params.taps, cin, cout, frames) * (cin * params.taps) ** -0.5
    x, residual = (torch.randn(batch, count, frames * params.hop) for count in (cin, made))
    return x, kernels, torch.randn(batch, cout, frames), residual


# Channels in and out, and parameters.
LVC: dict[str, tuple[int, int, lvc.LvcParams]] = {
    "published": (32, 64, lvc.LvcParams(8)),
    "long-hop": (32, 64, lvc.LvcParams(256)),
    "small": (8, 16, lvc.LvcParams(64)),
    "odd": (5, 14, lvc.LvcParams(7, 5)),
    "plain": (3, 21, lvc.LvcParams(50, 3, False)),
    "one": (1, 2, lvc.LvcParams(1, 1)),
    "hop-1": (4, 6, lvc.LvcParams(1)),
    "far": (4, 6, lvc.LvcParams(2, 7)),
    "wide": (17, 100, lvc.LvcParams(33, 7)),
}


def istft_params(n_fft: int, hop: int, **options: Any) -> istft_head.IstftHeadParams:
    return istft_head.IstftHeadParams(n_fft, hop, torch.hann_window(n_fft), **options)


ISTFT = {
    "hift": istft_params(16, 4, clip=1e2, phase="sin", clamp=0.99),
    "hiftnet": istft_params(16, 4, phase="sin"),
    "vocos-mel": istft_params(1024, 256, clip=1e2),
    "vocos-encodec": istft_params(1280, 320, padding="same", clip=1e2),
    "same-16": istft_params(16, 4, padding="same"),
    "hop-no-divisor": istft_params(20, 6, padding="same"),
    "one-bin": istft_head.IstftHeadParams(2, 1, torch.tensor([0.5, 1.0])),
    "thirds": istft_params(90, 30),
    "dense": istft_params(48, 5),
    "odd-half": istft_params(50, 10, clip=3.0),
    "whole": istft_params(16, 4, padding="none", clip=1e2),
    "whole-odd": istft_params(50, 9, padding="none"),
    "rectangular": istft_head.IstftHeadParams(24, 24, torch.ones(24), padding="same"),
}


PRIME = {"prime": istft_params(26, 5)}  # which C++ refuses


def spectrum(params: istft_head.IstftHeadParams, batch: int, frames: int, spread: float = 3.0) -> Inputs:
    rows = params.n_fft // 2 + 1
    return (torch.cat([torch.randn(batch, rows, frames), torch.randn(batch, rows, frames) * spread], 1),)


def stft_params(n_fft: int = 16, hop: int = 4, features: Any = "complex", padding: Any = "reflect") -> stft.StftParams:
    return stft.StftParams(n_fft, hop, torch.hann_window(n_fft), features, padding)


STFT = {
    "complex": stft_params(),
    "polar": stft_params(20, 3, "polar"),
    "same": stft_params(20, 6, padding="same"),
    "whole": stft_params(20, 6, padding="none"),
    "two": stft.StftParams(2, 1, torch.tensor([0.3, 0.8])),
    "odd-half": stft_params(50, 7),
    "1024": stft_params(1024, 256),
    "skewed": stft.StftParams(16, 5, torch.linspace(0.1, 1.3, 16)),
}


def source_params(kind: Any, noise: Any) -> nsf_source.NsfSourceParams:
    return nsf_source.NsfSourceParams(torch.linspace(-1, 2, 9), torch.zeros(1), 24000, 37, kind, noise=noise)


SOURCE = {
    "sample": source_params("sample", "normal"),
    "linear": source_params("frame_linear", "uniform"),
    "nearest": source_params("frame_nearest", "normal"),
}


def books(count: int, entries: int, width: int) -> Callable[[], rvq_decode.RvqParams]:
    return lambda: rvq_decode.RvqParams(torch.randn(count, entries, width))


def codes(params: rvq_decode.RvqParams, batch: int, steps: int) -> Inputs:
    count, entries, _ = params.codebooks.shape
    return (torch.randint(entries, (batch, count, steps)),)


def to_code(params: rvq_decode.RvqParams, batch: int, steps: int) -> Inputs:
    count, _, width = params.codebooks.shape
    return torch.randn(batch, width, steps), count


def one_channel(_: Any, batch: int, steps: int) -> Inputs:
    return (torch.randn(batch, 1, steps),)


def pitch(_: Any, batch: int, frames: int) -> Inputs:
    return (200 + 150 * torch.randn(batch, 1, frames),)


_ATTENDED = ((1, 1), (2, 2), (1, 7), (3, 50), (9, 13), (1, 300), (100, 2))
_RECURRENT = ((1, 1), (2, 2), (1, 7), (3, 50), (9, 13), (17, 3))
_PLANES = ((1, 1), (2, 2), (1, 29), (3, 64))
# Angles of nearly nothing say nothing: test_stft.py compares what is polar as complex numbers.
_SAMPLES = ((2, 9), (2, 17), (2, 49), (2, 333))
_NORMED = ((1, 1), (2, 2), (2, 7), (1, 64), (3, 1001))


def _of(op: Op, table: dict[str, Callable[[], Any]], **more: Any) -> dict[str, Case]:
    return {f"{op.name}-{name}": Case(op, make, signal, **more) for name, make in table.items()}


CASES: dict[str, Case] = {
    **_of(conv1d.OP, CONV1D),
    **_of(upsample.OP, UPSAMPLE),
    **_of(mrf.OP, MRF | NARROW_MRF),
    **_of(snake_aa.OP, SNAKE_AA),
    **_of(depthwise.OP, DEPTHWISE | FAR),
    **_of(attention_block.OP, ATTENTION, shapes=_ATTENDED, long=61),
    **_of(lstm.OP, LSTM, shapes=_RECURRENT, long=61),
    **_of(seanet_block.OP, SEANET),
    **{
        f"adain-{count}-{kind}": Case(
            adain.OP, partial(adain_params, count, kind), styled, _NORMED, 3e-6, long=9777 if count < 100 else 1777
        )
        for count, kind in ((1, "snake"), (2, "identity"), (16, "leaky_relu"), (33, "snake"), (514, "identity"))
    },
    **{
        f"group_norm_act-{count}-{kind}-{'added' if added else 'alone'}": Case(
            group_norm_act.OP,
            partial(group_norm_params, count, kind),
            partial(lifted, added=added),
            _NORMED[1:],
            long=9777 if count < 100 else 1777,
            fewest=2 if count == 1 else 1,
        )
        for count, kind in ((1, "elu"), (2, "identity"), (16, "elu"), (33, "identity"), (512, "elu"))
        for added in (False, True)
    },
    **{f"{op.name}-{name}": Case(op, make, with_row, close=1e-6) for name, (op, make) in CONVNEXT.items()},
    **{
        f"conv2d-{name}-{'added' if added else 'alone'}": Case(
            conv2d.OP, make, partial(planes, bands=bands, added=added), _PLANES, 1e-6, long=101
        )
        for name, (make, bands) in CONV2D.items()
        for added in (False, True)
    },
    **{
        f"square_conv-{count}-{kernel}-{'added' if added else 'alone'}": Case(
            square_conv.OP,
            partial(square_params, count, kernel, dilation),
            partial(lifted, added=added),
            ((1, 1), (2, 7), (3, 800)),
            5e-6,
            long=1777,
        )
        for count, kernel, dilation in ((1, 3, 5), (6, 11, 1), (16, 1, 1), (37, 7, 3), (128, 11, 5), (64, 3, 3))
        for added in (False, True)
    },
    **{
        f"lvc-{name}": Case(
            lvc.OP, partial(replace, params), partial(own_kernels, cin=cin, cout=cout), ((2, 1), (2, 2), (2, 11)), 1e-6
        )._replace(long=37)
        for name, (cin, cout, params) in LVC.items()
    },
    **{
        f"istft_head-{name}": Case(istft_head.OP, lambda p=p: p, spectrum, long=150)
        for name, p in (ISTFT | PRIME).items()
    },
    **{
        f"stft-{name}": Case(stft.OP, lambda p=p: p, one_channel, () if name == "polar" else _SAMPLES, 3e-6)
        for name, p in STFT.items()
    },
    **{
        f"nsf_source-{name}": Case(nsf_source.OP, lambda p=p: p, pitch, ((2, 1), (2, 60)), 3e-6, True, 301)
        for name, p in SOURCE.items()
    },
    **{
        f"rvq_decode-{count}-{entries}-{width}": Case(
            rvq_decode.OP, books(count, entries, width), codes, ((1, 1), (2, 7), (3, 150)), 0.0, True
        )
        for count, entries, width in ((4, 60, 20), (32, 1024, 128), (3, 37, 19), (1, 2, 1), (2, 50, 16))
    },
    **{
        f"rvq_encode-{count}-{entries}": Case(
            rvq_encode.OP, books(count, entries, width), to_code, ((1, 1), (2, 3), (3, 33)), 0.0, True
        )
        for count, entries, width in ((3, 48, 20), (4, 100, 40))
    },
}
