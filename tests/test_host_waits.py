"""No model's forward waits for the device: everything runs on the meta device, where every read of a value raises.

The kernels are their declared shapes; the Python around them, which is what could wait, is the real one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from stream_families import MAKERS, mel_of, vocoder
from torch import Tensor

from fastvoc.runtime import library as _library
from fastvoc.runtime.lengths import LengthPlan
from fastvoc.runtime.registry import OPS, Impl
from helpers import implementations

META = torch.device("meta")


def every(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same parameters with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: every(getattr(value, f.name), change) for f in fields(value) if f.init}
        return replace(value, **own)
    if isinstance(value, tuple):
        made = [every(v, change) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    return [every(v, change) for v in value] if isinstance(value, list) else value


def _real(t: Tensor) -> Tensor:
    return torch.ones(t.shape, dtype=t.dtype) if t.is_meta else t


@pytest.fixture(autouse=True)
def kernels_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native implementations take tensors that are nowhere; weights are packed as if they were somewhere."""
    implementations("conv1d")  # imports all ops
    monkeypatch.setattr(_library, "cpu_problem", lambda: None)
    for op in OPS.values():
        known = op.impls.get("cpp")
        if known is not None:
            monkeypatch.setitem(op.impls, "cpp", _nowhere(known))


def _nowhere(impl: Impl) -> Impl:
    def pack(params: Any) -> Any:
        packed = impl.pack(every(params, _real))
        return every(packed, lambda t: t.to(META))

    return replace(impl, devices=frozenset({"meta"}), pack=pack, pack_exact=None, bind=None, supports=lambda _: None)


def run_on_meta(model: Any, run: Callable[[Any, Any, torch.device], Any], highest: int, lowest: int = 4) -> Tensor:
    """Both passes that a graph wants, and one with ordinary lengths."""
    model = copy.deepcopy(model).to(META)
    plan = LengthPlan(2, lowest, highest, META)
    with torch.inference_mode():
        with plan.running():
            run(model, plan.lengths(), META)
        plan.freeze()
        plan.fill()
        with plan.running():
            captured: Tensor = run(model, plan.lengths(), META)
        direct: Tensor = run(model, torch.tensor([highest, lowest]), META)
        whole: Tensor = run(model, None, META)
    assert captured.shape == direct.shape == whole.shape
    return captured


@pytest.mark.parametrize("family", sorted(MAKERS))
def test_a_vocoder(family: str) -> None:
    voc = vocoder(family)
    frames = 23
    mel = torch.stack([mel_of(voc, frames), mel_of(voc, frames)])

    def run(model: Any, lengths: Any, device: torch.device) -> Any:
        return model(mel.to(device), lengths, backend="cpp")

    assert run_on_meta(voc.model, run, frames).shape == (2, 1, voc.config.samples(frames))


def test_a_codecs_decoder() -> None:
    codes = torch.randint(0, MONO.bins, (2, 4, 23))

    def run(model: Any, lengths: Any, device: torch.device) -> Any:
        return model.decode_segment(codes.to(device), None, lengths, "cpp")

    assert run_on_meta(lively(MONO), run, 23, 8).shape == (2, 1, 23 * MONO.hop)


@pytest.mark.parametrize(
    "wait", [lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.nonzero(), bool]
)
def test_a_wait_would_be_noticed(wait: Callable[[Tensor], Any]) -> None:
    voc = vocoder("hifigan-1")

    class Waiting(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, mel: Tensor, lengths: Any) -> Tensor:
            wait(mel[0, 0, :1])
            wav: Tensor = self.model(mel, lengths, backend="cpp")
            return wav

    with pytest.raises((RuntimeError, NotImplementedError)):
        run_on_meta(
            Waiting(voc.model), lambda m, lengths, device: m(torch.zeros(2, voc.n_mels, 9, device=device), lengths), 9
        )
