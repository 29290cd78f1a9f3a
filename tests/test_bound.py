"""Calls that ask once whether a weight changed notice what layers that ask themselves would notice."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.runtime.registry import use_backend, use_exact
from helpers import need_native

SMALL = HifiGanConfig(num_mels=6, upsample_initial_channel=16, upsample_rates=(3, 2), upsample_kernel_sizes=(6, 4))
MEL = torch.randn(1, 6, 9, generator=torch.Generator().manual_seed(1))


def model() -> HifiGan:
    torch.manual_seed(2)
    made = HifiGan(SMALL).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.normal_(0.0, 0.3)
    return made


def layer_by_layer(made: HifiGan) -> Tensor:
    """Without what a model remembers: lengths make every layer ask for itself."""
    return made(MEL, torch.tensor([9]))


@torch.no_grad()
def test_a_changed_weight_is_noticed() -> None:
    made = model()
    first = made(MEL)
    assert torch.equal(first, layer_by_layer(made))
    conv = made.resblocks[1].convs1[0]
    conv.weight.mul_(1.5)
    second = made(MEL)
    assert not torch.equal(first, second)
    conv.weight = nn.Parameter(conv.weight * 2, requires_grad=False)
    third = made(MEL)
    assert not torch.equal(second, third)
    made.ups[0].bias.data = made.ups[0].bias.data + 0.5
    fourth = made(MEL)
    assert not torch.equal(third, fourth)
    made.conv_post.weight.data.view(-1)[0] += 1.0
    made.prepare()
    assert not torch.equal(fourth, made(MEL))
    assert torch.equal(made(MEL), layer_by_layer(made))


@torch.no_grad()
def test_a_hooked_layer_sees_its_calls() -> None:
    made = model()
    made(MEL)
    seen: list[tuple[int, ...]] = []
    handle = made.ups[1].register_forward_hook(lambda module, given, y: seen.append(tuple(y.shape)))
    made(MEL)
    assert seen == [(1, 4, 56)]
    handle.remove()
    made(MEL)
    assert len(seen) == 1


def test_autograd_sees_every_layer() -> None:
    made = model().requires_grad_(True)
    with torch.inference_mode():
        made(MEL)
    made(MEL).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


@torch.no_grad()
def test_copies_have_their_own() -> None:
    made = model()
    first = made(MEL)
    twin = deepcopy(made)
    made.conv_pre.bias.add_(1.0)
    assert torch.equal(twin(MEL), first)
    twin.conv_pre.bias.add_(1.0)
    assert torch.equal(twin(MEL), made(MEL))
    assert not torch.equal(made(MEL), first)


@pytest.mark.native
@torch.no_grad()
def test_settings_are_asked_for_every_time() -> None:
    need_native()
    torch.manual_seed(3)
    made = HifiGan(HifiGanConfig(upsample_initial_channel=64)).eval().requires_grad_(False)
    mel = torch.randn(1, 80, 20)
    default = made(mel)
    with use_exact():
        exact = made(mel)
    with use_backend("torch"):
        reference = made(mel)
    assert torch.equal(made(mel), default)
    assert torch.equal(made(mel, backend="cpp"), default)
    assert torch.equal(made(mel, backend="torch"), reference)
    assert not torch.equal(reference, default)
    with use_exact():
        assert torch.equal(made(mel), exact)
