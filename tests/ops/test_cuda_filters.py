"""The CUDA kernels of depthwise, snake_aa, lvc and conv2d, compiled as plain C++, against their meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from cuda_emulation import DTYPES, RUN
from op_cases import DEPTHWISE, SNAKE_AA, cast, depthwise_params, double, random_snake, snake_aa_params, strided

from fastvoc.ops.conv2d import OP as CONV2D_OP
from fastvoc.ops.conv2d import Conv2dParams, conv2d_ref
from fastvoc.ops.depthwise import OP as DEPTHWISE_OP
from fastvoc.ops.depthwise import depthwise_ref
from fastvoc.ops.lvc import LvcParams, lvc_ref
from fastvoc.ops.snake_aa import OP as SNAKE
from fastvoc.ops.snake_aa import SnakeAaParams, snake_aa_ref
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import OPS, Spec
from helpers import assert_golden, golden, relative_l2

ROUNDING = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


# Several tiles, and more steps apart than there are.
FAR = {
    "tiles": lambda: replace(depthwise_params(40, 9, 2), pre=random_snake(40)),
    "beyond": lambda: replace(depthwise_params(33, 3, 400), pre=random_snake(33)),
    "many-taps": lambda: depthwise_params(2, 201),
}


@each_dtype
@pytest.mark.parametrize("name", [*DEPTHWISE, *FAR])
def test_depthwise(name: str, dtype: torch.dtype) -> None:
    params = cast({**DEPTHWISE, **FAR}[name](), dtype)
    packed = DEPTHWISE_OP.impls["cuda"].pack(params)
    lengths = torch.tensor([290, 129, 1, 64])
    x = torch.full((4, len(params.weight), 290), torch.nan, dtype=dtype)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(x.shape[1], n)
    y = RUN["depthwise"](x, packed, lengths)
    assert relative_l2(y, depthwise_ref(x.double(), double(params), lengths)) < ROUNDING[dtype]
    for view in strided(x).values():
        assert torch.equal(RUN["depthwise"](view, packed, lengths), y)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(RUN["depthwise"](x[i : i + 1, :, :n], packed)[0], y[i, :, :n])
        assert not y[i, :, n:].any()


def test_depthwise_refuses_more_taps_than_fit() -> None:
    supports = DEPTHWISE_OP.impls["cuda"].supports
    with mock.patch.object(_library, "cuda_refusal", return_value=None):
        assert supports(Spec("cuda", torch.float32, depthwise_params(1, 511))) is None
        assert "512 taps at most, not 513" in str(supports(Spec("cuda", torch.float32, depthwise_params(1, 513))))


@each_dtype
@pytest.mark.parametrize("name", SNAKE_AA)
def test_snake_aa(name: str, dtype: torch.dtype) -> None:
    params = cast(SNAKE_AA[name](), dtype)
    params = replace(params, taps=params.taps.float())
    packed = SNAKE.impls["cuda"].pack(params)
    lengths = torch.tensor([150, 65, 1, 64])
    x = torch.full((4, len(params.alpha), 150), torch.nan, dtype=dtype)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(x.shape[1], n)
    y = RUN["snake_aa"](x, packed, lengths)
    assert relative_l2(y, snake_aa_ref(x.double(), double(params), lengths)) < ROUNDING[dtype] * (
        10 if name == "fast" else 1
    )
    for view in strided(x).values():
        assert torch.equal(RUN["snake_aa"](view, packed, lengths), y)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(RUN["snake_aa"](x[i : i + 1, :, :n], packed)[0], y[i, :, :n])
        assert not y[i, :, n:].any()


def test_a_value_reaches_five_steps() -> None:
    packed = SNAKE.impls["cuda"].pack(snake_aa_params(3))
    x = torch.randn(1, 3, 140)
    x[0, 1, 66] = torch.nan
    y = RUN["snake_aa"](x, packed)
    assert y[0, 1].isnan().nonzero().flatten().tolist() == list(range(61, 72))
    assert not y[0, ::2].isnan().any()


@pytest.mark.golden
def test_snake_aa_golden() -> None:
    case = golden("bigvgan_v2_small")
    state = torch.load(case.dir / "bigvgan_generator.pt", weights_only=True)["generator"]
    act = "resblocks.0.activations.0.act"
    params = SnakeAaParams(state[f"{act}.alpha"].exp(), 1 / (state[f"{act}.beta"].exp() + 1e-9))
    assert_golden(RUN["snake_aa"](case.middle["ups0"], SNAKE.impls["cuda"].pack(params)), case, "mid.act0")


# Input channels, output channels, taps, hop, gate.
LVC = {
    "published": (32, 64, 3, 8, True),
    "long-hop": (8, 16, 3, 64, True),
    "odd": (5, 14, 5, 7, True),
    "plain": (3, 21, 3, 50, False),
    "one": (1, 2, 1, 1, True),
    "far": (4, 6, 7, 2, True),
}


@each_dtype
@pytest.mark.parametrize("name", LVC)
def test_lvc(name: str, dtype: torch.dtype) -> None:
    cin, cout, taps, hop, gated = LVC[name]
    params, frames, made = LvcParams(hop, taps, gated), (5, 1, 3), cout // 2 if gated else cout
    shapes = ((3, cin, 5 * hop), (3, taps, cin, cout, 5), (3, cout, 5), (3, made, 5 * hop))
    x, kernels, biases, residual = (torch.full(shape, torch.nan, dtype=dtype) for shape in shapes)
    for i, n in enumerate(frames):
        x[i, :, : n * hop], residual[i, :, : n * hop] = torch.randn(cin, n * hop), torch.randn(made, n * hop)
        kernels[i, ..., :n] = torch.randn(taps, cin, cout, n) * (cin * taps) ** -0.5
        biases[i, :, :n] = torch.randn(cout, n)
    lengths = torch.tensor(frames) * hop
    packed = OPS["lvc"].impls["cuda"].pack(params)
    y = RUN["lvc"](x, packed, kernels, biases, residual, lengths)
    wide = [t.double() for t in (kernels, biases, residual)]
    assert relative_l2(y, lvc_ref(x.double(), params, *wide, lengths)) < ROUNDING[dtype]
    rows = kernels.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    for layout, view in strided(x).items():
        again = RUN["lvc"](view, packed, rows, strided(biases)[layout], strided(residual)[layout], lengths)
        assert torch.equal(again, y), layout
    for i, n in enumerate(frames):
        one, steps = slice(i, i + 1), n * hop
        beside = residual[one, :, :steps]
        alone = RUN["lvc"](x[one, :, :steps], packed, kernels[one, ..., :n], biases[one, :, :n], beside)
        assert torch.equal(alone[0], y[i, :, :steps])
        assert not y[i, :, steps:].any()
    item = RUN["lvc"](x[:1], packed, kernels[:1], biases[:1])
    assert relative_l2(item, lvc_ref(x[:1].double(), params, wide[0][:1], wide[1][:1])) < ROUNDING[dtype]


def conv2d_params(
    cin: int, cout: int, kernel: tuple[int, int] = (3, 3), slope: float = 1.0, pool: int = 1
) -> Conv2dParams:
    weight = torch.randn(cout, cin, *kernel) / (cin * kernel[0] * kernel[1]) ** 0.5
    return Conv2dParams(weight, torch.randn(cout), slope, pool)


# Parameters, and the bands of the input.
CONV2D = {
    "first": (lambda: conv2d_params(1, 64, slope=0.01), 80),
    "pooled": (lambda: conv2d_params(19, 37, slope=0.01, pool=2), 13),
    "shortcut": (lambda: conv2d_params(40, 48, (1, 1)), 10),
    "three": (lambda: conv2d_params(9, 21, slope=0.2, pool=3), 23),
    "eleven": (lambda: conv2d_params(5, 17, (5, 1), 0.1, 11), 24),
    "wide": (lambda: conv2d_params(6, 17, (1, 7)), 9),
    "one-band": (lambda: conv2d_params(33, 16), 1),
}


@each_dtype
@pytest.mark.parametrize("name", CONV2D)
def test_conv2d(name: str, dtype: torch.dtype) -> None:
    make, bands = CONV2D[name]
    params = cast(make(), dtype)
    packed = CONV2D_OP.impls["cuda"].pack(params)
    lengths = torch.tensor([11, 1, 7])
    x = torch.full((3, params.weight.shape[1], 11, bands), torch.nan, dtype=dtype)
    residual = torch.full((3, len(params.bias), 11, bands), torch.nan, dtype=dtype)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n], residual[i, :, :n] = torch.randn(x.shape[1], n, bands), torch.randn(residual.shape[1], n, bands)
    y = RUN["conv2d"](x, packed, residual, lengths)
    meant = conv2d_ref(x.double(), double(params), residual.double(), lengths)
    assert relative_l2(y, meant) < ROUNDING[dtype]
    layout = torch.channels_last
    assert torch.equal(RUN["conv2d"](x.contiguous(memory_format=layout), packed, residual, lengths), y)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(RUN["conv2d"](x[i : i + 1, :, :n], packed, residual[i : i + 1, :, :n])[0], y[i, :, :n])
        assert not y[i, :, n:].any()
    assert relative_l2(RUN["conv2d"](x[:1], packed), conv2d_ref(x[:1].double(), double(params))) < ROUNDING[dtype]


def test_conv2d_pools_what_is_no_number() -> None:
    params = conv2d_params(1, 1, (1, 1), pool=4)
    x = torch.randn(1, 1, 2, 8)
    x[0, 0, 0, 6] = torch.nan
    y = RUN["conv2d"](x, CONV2D_OP.impls["cuda"].pack(params))
    assert y.isnan().flatten().tolist() == [False, True, False, False]
