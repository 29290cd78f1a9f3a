"""The activations that ops fuse, against their meaning in float64 over their whole range."""

from __future__ import annotations

import pytest
import torch

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.nn.mrf import MrfStage, ResidualBlock
from fastvoc.nn.snake import Snake
from fastvoc.ops.activation import TANH, Activation, elu, gelu, snake
from fastvoc.ops.conv1d import Conv1dParams, conv1d
from fastvoc.ops.mrf_params import MrfConv, MrfParams
from fastvoc.runtime import library as _library
from helpers import implementations, run_under


def curve(alpha: float, inverse: float) -> Activation:
    return snake(torch.tensor([alpha]), torch.tensor([inverse]))


# Activation, range of x, and the error that float32 rounding of its result explains.
CASES = {
    "tanh": (TANH, 12.0, 3e-7),
    "elu": (elu(), 40.0, 1e-7),
    "elu-near-0": (elu(), 1e-3, 1e-10),
    "gelu": (gelu(), 8.0, 2e-6),
    "gelu-far": (gelu(), 60.0, 4e-6),
    "snake": (curve(1.0, 1.0), 100.0, 4e-6),
    "snake-small": (curve(1.0, 1.0), 3.0, 5e-7),
    "snake-fast": (curve(1024.0, 100.0), 10.0, 5e-5),
}


def through_the_engine(act: Activation, x: torch.Tensor, place: str, impl: str) -> torch.Tensor:
    """The activation alone, before or after a convolution that copies its input."""
    params = Conv1dParams(torch.ones(1, 1, 1), None, **{place: act})
    return conv1d(x[None, None], params, backend=impl)[0, 0]


def wide(act: Activation) -> Activation:
    if act.alpha is None or act.inverse is None:
        return act
    return snake(act.alpha.double(), act.inverse.double())


@pytest.mark.parametrize("impl", implementations("conv1d"))
@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize(("act", "bound", "tolerance"), CASES.values(), ids=CASES)
def test_equals_the_meaning(act: Activation, bound: float, tolerance: float, place: str, impl: str) -> None:
    x = torch.linspace(-bound, bound, 20011)
    y = through_the_engine(act, x, place, impl)
    expected = wide(act)(x.double()[None, None])[0, 0]
    assert (y.double() - expected).abs().max() <= tolerance


@pytest.mark.native
@pytest.mark.parametrize("isa", _library.ISAS)
def test_snake_keeps_its_phase_far_out_on_every_instruction_set(isa: str) -> None:
    """sin^2 alone up to 1e4; alpha is a power of two, so that alpha * x is exact."""
    script = (
        "import torch\n"
        "from fastvoc.ops.activation import snake\n"
        "from fastvoc.ops.conv1d import Conv1dParams, conv1d\n"
        "x = torch.linspace(-9.9, 9.9, 100003)\n"
        "alpha, inverse = torch.tensor([1024.0]), torch.tensor([2.0**20])\n"
        "y = conv1d(x[None, None], Conv1dParams(torch.ones(1, 1, 1), None, pre=snake(alpha, inverse)), backend='cpp')\n"
        "wave = (y[0, 0].double() - x.double()) / 2**20\n"
        "print((wave - (1024 * x.double()).sin().square()).abs().max().item())\n"
    )
    assert float(run_under(isa, script)) < 1e-6


@pytest.mark.parametrize("impl", implementations("conv1d"))
@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("act", [TANH, elu(), gelu(), curve(1.5, 0.5)], ids=lambda act: act.kind)
def test_nan_stays_nan(act: Activation, place: str, impl: str) -> None:
    x = torch.randn(37)
    x[[0, 17, 36]] = torch.nan
    assert torch.equal(through_the_engine(act, x, place, impl).isnan(), x.isnan())


def test_wrong_activations_are_named() -> None:
    two, three = torch.ones(2), torch.ones(3)
    weight = torch.ones(2, 3, 1)
    with pytest.raises(ArgumentError, match="kind: expected one of identity, "):
        Activation("mish")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="only snake has them, not elu"):
        Activation("elu", 0.0, two, two)
    with pytest.raises(ArgumentError, match="snake needs both"):
        Activation("snake", 0.0, two)
    with pytest.raises(ShapeError, match=r"\[2\] and \[3\]"):
        snake(two, three)
    with pytest.raises(ShapeError, match=r"conv1d: activation: alpha: expected \[3\], got \[2\]"):
        Conv1dParams(weight, None, pre=snake(two, two))
    with pytest.raises(DtypeError, match=r"conv1d: activation: alpha: expected .* like the weights"):
        Conv1dParams(weight, None, post=snake(two.double(), two))
    with pytest.raises(ShapeError, match="mrf: activation"):
        MrfParams((((MrfConv(torch.ones(2, 2, 1), None, 1, snake(three, three)),),),), Activation())


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("logscale", [False, True])
def test_snake_parameters(beta: bool, logscale: bool) -> None:
    module = Snake(5, eps=1e-3, beta=beta, logscale=logscale)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 2.0)
    alpha = module.alpha.exp() if logscale else module.alpha
    amplitude = alpha if module.beta is None else module.beta.exp() if logscale else module.beta
    x = torch.randn(2, 5, 9)
    expected = x + (alpha[:, None] * x).sin() ** 2 / (amplitude[:, None] + 1e-3)
    torch.testing.assert_close(module.activation()(x), expected)
    assert set(module.state_dict()) == ({"alpha", "beta"} if beta else {"alpha"})


@pytest.mark.parametrize("impl", implementations("mrf"))
def test_a_stage_follows_its_snakes(impl: str) -> None:
    """The names are the published ones, a changed frequency counts at once, and training reaches it."""
    block = ResidualBlock(6, 3, (1, 3), pairs=True, snake=lambda: Snake(6))
    assert {name for name, _ in block.named_parameters() if "activations" in name} == {
        f"activations{i}.{m}.alpha" for i in (1, 2) for m in (0, 1)
    }
    stage = MrfStage("mrf.0", [block])
    x = torch.randn(1, 6, 40)
    for _ in range(2):
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.uniform_(-0.5, 0.5)
            torch.testing.assert_close(stage(x, backend=impl), stage(x, backend="torch"))
    stage(x).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
