"""Weights changed through `.data`, as training code does: the next call has them, whatever was packed before."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from compat_models import MODELS, tensors
from stream_families import FAMILIES, MAKERS, mel_of
from torch import Tensor, nn

from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.nn.weights import Weights

BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]


def equal(ours: Any, theirs: Any) -> bool:
    pairs = list(zip(tensors(ours), tensors(theirs), strict=True))
    return bool(pairs) and all(torch.equal(a, b) for a, b in pairs)


def test_every_compat_class_is_in_the_table() -> None:
    listed = {name.split()[0] for name in MODELS}
    for module in ("bigvgan", "chatterbox", "cosyvoice", "dac", "hifigan", "snac", "transformers", "vocos"):
        home = import_module(f"fastvoc.compat.{module}")
        for name in home.__all__:
            found = getattr(home, name)
            if inspect.isclass(found) and issubclass(found, nn.Module) and module == found.__module__.split(".")[2]:
                assert f"{module}.{name}" in listed
            elif inspect.isclass(found) and issubclass(found, nn.Module):
                assert any(entry.split(".")[1] == name for entry in listed)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_compat_class(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", backend)
    case = MODELS[name]
    model, x = case.made(), case.input()
    before = case.run(model, x)
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    after = case.run(model, x)
    fresh = case.made()
    for parameter in fresh.parameters():
        parameter.mul_(0.5)
    assert equal(after, case.run(fresh, x))
    assert not equal(before, after)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_weight_of_a_family(family: str, backend: str) -> None:
    voc = MAKERS[family]()
    voc.backend = backend
    mel = mel_of(voc, 8)
    before = voc(mel, check=False)
    changes: list[Callable[[Tensor], Any]] = [
        lambda data: data.mul_(1.25),
        lambda data: data.copy_(data.flip(0) + 0.01),
        lambda data: data.lerp_(torch.full_like(data, 0.1), 0.01),
    ]
    changed = 0
    named = list(voc.model.named_parameters())
    for i, (name, parameter) in enumerate(named[:: max(len(named) // 9, 1)]):
        changes[i % 3](parameter.data)
        seen = voc(mel, check=False)
        voc.model.prepare(backend=backend)
        assert torch.equal(seen, voc(mel, check=False)), name
        changed += not torch.equal(seen, before)
        before = seen
    assert changed > i // 2


def test_any_layout_and_type() -> None:
    base = torch.arange(240.0).reshape(4, 6, 10)
    for make in (
        lambda t: t.clone(),
        lambda t: t.clone().transpose(0, 2),
        lambda t: t.clone()[::2, 1:, ::3],
        lambda t: t[:1, :1, :1].clone(),
        lambda t: t[0, 0, 1].clone(),
        lambda t: t[:0],
        lambda t: t.clone().expand(2, 4, 6, 10),
        lambda t: t.bfloat16(),
        lambda t: t.double(),
        lambda t: t.to(torch.int8),
        lambda t: torch.complex(t, t).to(torch.complex128),
        lambda t: torch.nn.functional.pad(t.bfloat16().flatten(), (1, 0))[1:],  # not on a word's boundary
    ):
        tensor = make(base)
        weights = Weights([tensor])
        assert weights.are([tensor])
        if not tensor.numel():
            continue
        version = tensor._version
        # Through another tensor on the same memory, whose writes are its own.
        torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage()).add_(1)  # type: ignore[call-overload]
        assert tensor._version == version
        assert not weights.are([tensor])


def test_replaced_memory_stays_readable() -> None:
    parameter = nn.Parameter(torch.randn(1 << 18), requires_grad=False)
    weights = Weights([parameter])
    parameter.data = torch.randn(1 << 18)
    assert not weights.are([parameter])


def test_copies_have_their_own() -> None:
    torch.manual_seed(0)
    config = HifiGanConfig(num_mels=6, upsample_initial_channel=16, upsample_rates=(3, 2), upsample_kernel_sizes=(6, 4))
    model, mel = HifiGan(config).eval().requires_grad_(False), torch.randn(1, 6, 9)
    first = model(mel)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data.mul_(0.5)
    assert not torch.equal(twin(mel), first)
    assert torch.equal(model(mel), first)
