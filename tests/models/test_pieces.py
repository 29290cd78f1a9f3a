"""Long clips run in pieces: the samples are those of one call, bit for bit, and memory does not grow with the clip."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from codec_models import UNUSUAL, lively, noise
from stream_families import MAKERS

from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V3, HifiGan
from fastvoc.models.hift_config import COSYVOICE2
from fastvoc.models.hiftnet import HiftNet
from fastvoc.nn import pieces
from fastvoc.nn.network import Network
from fastvoc.nn.pieces import Pieces, Stretch
from helpers import ROOT

pytestmark = pytest.mark.native

PIECEWISE = [name for name in MAKERS if not name.startswith("univnet")]  # whose kernels depend on mels far from them


class Cuts:
    """Makes every network that is cut into pieces use the shortest that it may have, and counts the calls of each.

    `change` is made to each rule; `frames` and `items` are those of every call of a network, in order.
    """

    def __init__(self, monkeypatch: Any, change: Callable[[Pieces], Pieces] | None = None) -> None:
        self.frames: list[int] = []
        self.items: list[int] = []
        inner_of, inner_call = Stretch.of.__func__, Network.__call__

        def of(cls: type[Stretch], network: Network, device: str = "cpu") -> Stretch:
            stretch: Stretch = inner_of(cls, network, device)
            rule = stretch.pieces
            if rule is None:
                return stretch
            rule = replace(rule, frames=max(rule.grain, 4))
            return replace(stretch, pieces=rule if change is None else change(rule))

        def call(network: Network, *values: Any, **options: Any) -> Any:
            if any(part.REACH != "past" for _, part in network.parts()):
                self.items.append(len(values[0]))
                self.frames.append(values[0].shape[0] * values[0].shape[2] // network.per_frame[0])
            return inner_call(network, *values, **options)

        monkeypatch.setattr(Stretch, "of", classmethod(of))
        monkeypatch.setattr(Network, "__call__", call)


def _again(model: Any) -> None:
    """Forgets how its networks are cut."""
    for module in model.modules():
        module.__dict__.pop("_networks", None)


@pytest.mark.parametrize("lengths", [None, (1, 97, 400, 233)])
@pytest.mark.parametrize("family", PIECEWISE)
def test_pieces_equal_the_whole(family: str, lengths: tuple[int, ...] | None, monkeypatch: Any) -> None:
    voc = MAKERS[family]()
    voc.backend = "cpp"
    batch = torch.randn(4, voc.n_mels, 400)
    if family == "vocos-center" and lengths is not None:
        lengths = (9, *lengths[1:])
    whole = voc(batch, lengths, check=False)
    _again(voc.model)
    cuts = Cuts(monkeypatch)
    made = voc(batch, lengths, check=False)
    assert len(cuts.frames) > 8
    assert torch.equal(made, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("config", [HIFIGAN_V1, HIFIGAN_V3, COSYVOICE2], ids=["v1", "v3", "cosyvoice2"])
def test_published_shapes(config: Any, dtype: torch.dtype, monkeypatch: Any) -> None:
    """The strides, dilations and schemes of the published models, with fewer channels."""
    thin = {"base_channels": 128} if config is COSYVOICE2 else {"upsample_initial_channel": 256}
    model: Any = (HiftNet if config is COSYVOICE2 else HifiGan)(replace(config, **thin)).eval().requires_grad_(False)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.copy_(torch.randn_like(parameter) * (0.7 / fan**0.5))
    model, mel = model.to(dtype), torch.randn(1, config.num_mels, 300).to(dtype)
    with torch.inference_mode():
        whole = model(mel, backend="cpp")
        _again(model)
        cuts = Cuts(monkeypatch, lambda rule: replace(rule, frames=90))
        assert torch.equal(model(mel, backend="cpp"), whole)
    assert len(cuts.frames) > 3


def test_a_margin_too_small_is_seen(monkeypatch: Any) -> None:
    """The tests above can fail: with half of the margin the samples differ."""
    voc = MAKERS["hifigan-1"]()
    mel = torch.randn(1, voc.n_mels, 400)
    whole = voc(mel, check=False)
    _again(voc.model)
    Cuts(monkeypatch, lambda rule: replace(rule, before=rule.before // 4, after=rule.after // 4, grain=1))
    assert not torch.equal(voc(mel, check=False), whole)


@pytest.mark.parametrize("lengths", [None, (1, 640, 4003, 2500)])
@pytest.mark.parametrize("kind", ["mono", "two-sided", "deep", "zeros", "trimmed", "wide-kernels"])
def test_codec_pieces_equal_the_whole(kind: str, lengths: tuple[int, ...] | None, monkeypatch: Any) -> None:
    config = UNUSUAL[kind]
    model = lively(config)
    counts = None if lengths is None else torch.tensor(lengths)
    wav = noise(config, 4003, 4)
    with torch.inference_mode():
        whole, _ = model.encode(wav, 8, counts, "cpp")
        frames = None if lengths is None else [config.frames(n) for n in lengths]
        sound = model.decode(whole, None, frames, "cpp")
        _again(model)
        cuts = Cuts(monkeypatch, lambda rule: replace(rule, frames=2))
        codes, _ = model.encode(wav, 8, counts, "cpp")
        again = model.decode(whole, None, frames, "cpp")
    assert len(cuts.frames) > 8
    assert torch.equal(codes[0], whole[0])
    assert torch.equal(again, sound)


@pytest.mark.parametrize("lengths", [None, (1, 640, 4003, 2500)])
@pytest.mark.parametrize("kind", ["stereo", "causal-normed"])
def test_normed_codecs_run_item_by_item(kind: str, lengths: tuple[int, ...] | None, monkeypatch: Any) -> None:
    """A group norm reads the whole item, so none is cut."""
    config = UNUSUAL[kind]
    model = lively(config)
    counts = None if lengths is None else torch.tensor(lengths)
    wav = noise(config, 4003, 4)
    with torch.inference_mode():
        whole, scale = model.encode(wav, None, counts, "cpp")
        frames = None if lengths is None else [config.frames(n) for n in lengths]
        sound = model.decode(whole, scale, frames, "cpp")
        _again(model)
        cuts = Cuts(monkeypatch)
        monkeypatch.setattr(pieces, "PIECE_BYTES", 1)
        codes, again_scale = model.encode(wav, None, counts, "cpp")
        again = model.decode(whole, scale, frames, "cpp")
    assert len(cuts.items) >= 4 * 4
    assert all(torch.equal(a, b) for a, b in zip(codes, whole, strict=True))
    assert (scale is None and again_scale is None) or torch.equal(again_scale, scale)
    assert torch.equal(again, sound)


_MEASURE = """
import sys, torch
sys.path[:0] = ["benchmarks", "tests"]
from zoo import ZOO

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024

torch.set_num_threads(2)
name, seconds = sys.argv[1], float(sys.argv[2])
model = ZOO[name].model()
with torch.inference_mode():
    ZOO[name].run(model, *ZOO[name].inputs(model, 1.0, 1), backend="cpp")
    inputs = ZOO[name].inputs(model, seconds, 1)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmHWM")
    made = ZOO[name].run(model, *inputs, backend="cpp")
made = made if isinstance(made, list) else [made]
print(memory("VmHWM") - before - sum(t.nbytes for t in made) / 2**20)
"""


def peak_mb(model: str, seconds: float) -> float:
    """Memory that one call takes beyond the weights, its input and its output, in a process of its own."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the peak from Linux's /proc")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, model, str(seconds)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


# Not cut, these clips take 490 and 580 MB.
@pytest.mark.parametrize(("model", "seconds"), [("v2", 250.0), ("encodec-24k-decode", 100.0)])
def test_memory_of_a_long_clip(model: str, seconds: float) -> None:
    assert peak_mb(model, seconds) < 350


# In MB. HiFTNet also holds its source, as long as the output; EnCodec at 48 kHz runs 16 segments at a time.
_BOUNDS = {
    "v1": 300,
    "v2": 300,
    "vocos": 300,
    "cosyvoice2": 550,
    "encodec-24k-encode": 400,
    "encodec-24k-decode": 400,
    "encodec-48k-encode": 450,
    "encodec-48k-decode": 450,
}


@pytest.mark.slow
@pytest.mark.parametrize("model", _BOUNDS)
def test_memory_of_ten_minutes(model: str) -> None:
    assert peak_mb(model, 600.0) < _BOUNDS[model]
