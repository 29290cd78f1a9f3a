"""The discriminators against published values, and their narrowed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.training.discriminators import MultiPeriodDiscriminator, MultiScaleDiscriminator
from fastvoc.training.losses import discriminator_loss, feature_loss, generator_loss
from helpers import GoldenCase, assert_golden, relative_l2

KINDS = {"mpd": MultiPeriodDiscriminator, "msd": MultiScaleDiscriminator}


@pytest.fixture(params=["mpd", "msd"])
def published(request: pytest.FixtureRequest, golden: Callable[[str], GoldenCase]) -> tuple[GoldenCase, nn.Module]:
    case = golden(f"hifigan_{request.param}")
    judge = KINDS[request.param]()
    state = torch.load(case.dir / "do_00000000", map_location="cpu", weights_only=True)
    judge.load_state_dict(state[request.param])
    return case, judge.eval()


def test_every_published_value(published: tuple[GoldenCase, nn.Module]) -> None:
    case, judge = published
    real, generated = case.inputs["y_real"], case.inputs["y_generated"].requires_grad_()
    of_real, of_generated = judge(real), judge(generated)
    adversarial, features = generator_loss(of_generated), feature_loss(of_real, of_generated)
    ours = {
        "feature_loss": features[None],
        "generator_loss": adversarial[None],
        "discriminator_loss": discriminator_loss(of_real, of_generated)[None],
        "generator_losses": torch.stack([generator_loss([one]) for one in of_generated]),
        "discriminator_losses_real": torch.stack([(1 - score).square().mean() for score, _ in of_real]),
        "discriminator_losses_generated": torch.stack([score.square().mean() for score, _ in of_generated]),
    }
    for i, (r, g) in enumerate(zip(of_real, of_generated, strict=True)):
        ours |= {f"score_real_{i}": r[0], f"score_generated_{i}": g[0]}
    for name, loss in (
        ("generator_loss", adversarial),
        ("feature_loss", features),
        ("sum", adversarial + features),
    ):
        ours[f"grad_{name}"] = torch.autograd.grad(loss, generated, retain_graph=True)[0]
    assert sorted(ours) == sorted(name for name in case.outputs if not name.startswith("train_"))
    for name, value in ours.items():
        if name.startswith("grad_"):  # a kink that rounding crosses turns single values, more or fewer by processor
            assert relative_l2(value, case.outputs[name]) < 2e-3, name
        else:
            assert_golden(value, case, name)
    shapes = [[list(m.shape) for m in maps] for _, maps in of_real]
    assert shapes == case.case["feature_map_shapes"]


def test_parameters_come_in_the_published_order() -> None:
    names = [name for name, _ in MultiScaleDiscriminator().discriminators[0].named_parameters()]
    assert names[:4] == ["convs.0.bias", "convs.0.weight_orig", "convs.1.bias", "convs.1.weight_orig"]
    names = [name for name, _ in MultiPeriodDiscriminator().discriminators[0].named_parameters()]
    assert names[:3] == ["convs.0.bias", "convs.0.weight_g", "convs.0.weight_v"]
    assert names[-3:] == ["conv_post.bias", "conv_post.weight_g", "conv_post.weight_v"]


def test_spectral_norm_makes_one_published_power_iteration_a_forward(golden: Callable[[str], GoldenCase]) -> None:
    case = golden("hifigan_msd")
    judge = MultiScaleDiscriminator()
    judge.load_state_dict(torch.load(case.dir / "do_00000000", map_location="cpu", weights_only=True)["msd"])
    first = judge.train().discriminators[0]
    with torch.no_grad():
        for name in ("real", "generated"):
            assert_golden(first(case.inputs[f"y_{name}"])[0], case, f"train_score_{name}_0")
    assert_golden(first.convs[0].weight_u, case, "mid.train_u_first_after")
    assert_golden(first.conv_post.weight_u, case, "mid.train_u_last_after")


def test_gradients_survive_a_second_forward_in_training() -> None:
    """The power iteration of the second forward must not spoil what the first one's backward needs."""
    first = MultiScaleDiscriminator(1 / 32).train().discriminators[0]
    x = torch.randn(1, 1, 300, requires_grad=True)
    state = {name: value.clone() for name, value in first.state_dict().items()}
    (alone,) = torch.autograd.grad(first(x)[0].sum(), x)
    first.load_state_dict(state)
    score = first(x)[0].sum()
    first(x)
    assert torch.equal(torch.autograd.grad(score, x)[0], alone)


@pytest.mark.parametrize("width", [1 / 4, 1 / 8, 1 / 32])
def test_a_narrow_discriminator_scales_every_inner_layer(width: float) -> None:
    for judge, channels in (
        (MultiPeriodDiscriminator(width, (2, 3)), [32, 128, 512, 1024, 1024]),
        (MultiScaleDiscriminator(width, 2), [128, 128, 256, 512, 1024, 1024, 1024]),
    ):
        results = judge(torch.randn(1, 1, 600))
        assert len(results) == 2
        for score, maps in results:
            assert [m.shape[1] for m in maps] == [*(round(c * width) for c in channels), 1]
            assert torch.equal(score, maps[-1].flatten(1))


def test_a_padded_tail_mirrors_the_signal() -> None:
    """A length that is no multiple of the period is judged as the signal with its last samples mirrored."""
    judge = MultiPeriodDiscriminator(1 / 32, (7,))
    wav = torch.randn(1, 1, 702)
    mirrored = torch.cat([wav, wav[..., -6:-1].flip(-1)], -1)
    assert mirrored.shape[-1] % 7 == 0
    assert torch.equal(judge(wav)[0][0], judge(mirrored)[0][0])
    assert judge(mirrored)[0][0].shape == judge(wav)[0][0].shape


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="width"):
        MultiPeriodDiscriminator(1 / 100)
    with pytest.raises(ArgumentError, match="width"):
        MultiScaleDiscriminator(0.3)
    with pytest.raises(ShapeError, match=r"\[B, 1, L\], got \[2, 2, 600\]"):
        MultiScaleDiscriminator(1 / 32)(torch.zeros(2, 2, 600))
    with pytest.raises(ShapeError, match="wav"):
        MultiPeriodDiscriminator(1 / 32)(torch.zeros(600))
