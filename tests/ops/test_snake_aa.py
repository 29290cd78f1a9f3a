"""snake_aa: the published filter and activation, its reach, extreme values, every instruction set."""

from __future__ import annotations

import pytest
import torch
from op_cases import snake_aa_params

from fastvoc.ops.snake_aa import SnakeAaParams, kaiser_sinc, snake_aa, snake_aa_ref, upsampled_ref
from helpers import assert_golden, golden, implementations

IMPLS = implementations("snake_aa")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["bigvgan_base_small", "bigvgan_v2_small"])
def test_golden(name: str, impl: str, nan_poison: None) -> None:
    case = golden(name)
    state = torch.load(case.dir / "bigvgan_generator.pt", weights_only=True)["generator"]
    act = "resblocks.0.activations.0.act"
    params = SnakeAaParams(state[f"{act}.alpha"].exp(), 1 / (state[f"{act}.beta"].exp() + 1e-9))
    x = case.middle["ups0"]
    assert_golden(upsampled_ref(x, params.taps), case, "mid.act0_upsampled")
    assert_golden(snake_aa(x, params, backend=impl), case, "mid.act0")
    stored = state["resblocks.0.activations.0.upsample.filter"].flatten()
    torch.testing.assert_close(kaiser_sinc(), stored, rtol=0, atol=1e-7)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_value_reaches_five_steps(impl: str) -> None:
    params = snake_aa_params(20)
    x = torch.randn(2, 20, 300)
    clean = snake_aa(x, params, backend=impl)
    x[1, 7, 150] = torch.nan
    y = snake_aa(x, params, backend=impl)
    assert y[1, 7].isnan().nonzero().flatten().tolist() == list(range(145, 156))
    touched = y.isnan()
    assert int(touched.sum()) == 11
    assert torch.equal(y[~touched], clean[~touched])


@pytest.mark.parametrize("impl", IMPLS)
def test_extreme_values_stay_finite(impl: str) -> None:
    params = snake_aa_params(5, 100.0)
    for scale in (0.0, 1e-38, 1e4, 1e8, 1e30):
        x = torch.randn(1, 5, 200) * scale
        y = snake_aa(x, params, backend=impl)
        assert y.isfinite().all()
        assert y.abs().max() <= 2 * (params.inverse.max() + x.abs().max())


@pytest.mark.native
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_the_phase_of_large_arguments(scale: float) -> None:
    # A constant passes both filters, so the activation of one number shows alone.
    values = torch.linspace(-40.0, 40.0, 16001)
    params = SnakeAaParams(torch.full((16001,), scale), torch.ones(16001))
    y = snake_aa(values[None, :, None].expand(1, -1, 9), params, backend="cpp")[0, :, 4]
    # The interpolation rounds x to within an ulp or so, which the phase multiplies.
    expected = values.double() + torch.sin(scale * values.double()).square()
    assert (y.double() - expected).abs().max() < 2e-6 + 40 * scale * 4e-7


def test_reference_is_differentiable_in_its_parameters() -> None:
    alpha, inverse = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, alpha: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        return snake_aa_ref(x, SnakeAaParams(alpha, inverse))

    assert torch.autograd.gradcheck(run, (x, alpha, inverse))
