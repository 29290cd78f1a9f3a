"""Long clips run in pieces: the samples are those of one call, bit for bit, and memory does not grow with the clip."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from codec_models import UNUSUAL, lively, noise
from stream_families import MAKERS, vocoder

from fastvoc.models import seanet_chain
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V3, HifiGan
from fastvoc.models.hift_config import COSYVOICE2
from fastvoc.models.hiftnet import HiftNet
from fastvoc.models.seanet_chain import SeanetChain
from fastvoc.nn.pieces import Pieces
from helpers import ROOT

pytestmark = pytest.mark.native

PIECEWISE = [name for name in MAKERS if name.startswith(("hifigan", "hift", "vocos"))]
INNER = {"hifigan": "_whole", "hift": "_decode", "vocos": "_whole"}


def _shortened(model: Any) -> Pieces:
    """The model's rule with the shortest pieces that it may have."""
    rule: Pieces = model._pieces
    return replace(rule, frames=max(rule.grain, 4))


@pytest.mark.parametrize("lengths", [None, (1, 97, 400, 233)])
@pytest.mark.parametrize("family", PIECEWISE)
def test_pieces_equal_the_whole(family: str, lengths: tuple[int, ...] | None, monkeypatch: Any) -> None:
    voc = vocoder(family, "cpp")
    model = voc.model
    batch = torch.randn(4, voc.n_mels, 400)
    if family == "vocos-center" and lengths is not None:
        lengths = (9, *lengths[1:])
    whole = voc(batch, lengths, check=False)
    seen: list[int] = []
    name = INNER[family.partition("-")[0]]
    inner = getattr(model, name)
    monkeypatch.setattr(model, name, lambda x, *more: (seen.append(x.shape[0] * x.shape[2]), inner(x, *more))[1])
    monkeypatch.setattr(model, "_pieces", _shortened(model), raising=False)
    made = voc(batch, lengths, check=False)
    assert len(seen) > 8
    assert max(seen) < 400
    assert torch.equal(made, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("config", [HIFIGAN_V1, HIFIGAN_V3, COSYVOICE2], ids=["v1", "v3", "cosyvoice2"])
def test_published_shapes(config: Any, dtype: torch.dtype) -> None:
    """The strides, dilations and schemes of the published models, with fewer channels."""
    thin = {"base_channels": 128} if config is COSYVOICE2 else {"upsample_initial_channel": 256}
    model: Any = (HiftNet if config is COSYVOICE2 else HifiGan)(replace(config, **thin)).eval().requires_grad_(False)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.copy_(torch.randn_like(parameter) * (0.7 / fan**0.5))
    model, mel = model.to(dtype), torch.randn(1, config.num_mels, 300).to(dtype)
    with torch.inference_mode():
        whole = model(mel, backend="cpp")
        model._pieces = replace(model._pieces, frames=90)
        assert torch.equal(model(mel, backend="cpp"), whole)


def test_a_margin_too_small_is_seen() -> None:
    """The tests above can fail: with half of the margin the samples differ."""
    voc = MAKERS["hifigan-1"]()
    mel = torch.randn(1, voc.n_mels, 400)
    whole = voc(mel, check=False)
    rule = _shortened(voc.model)
    voc.model._pieces = replace(rule, before=rule.before // 4, after=rule.after // 4, grain=1)
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
        seen: list[int] = []
        inner = SeanetChain._whole

        def counted(chain: Any, x: torch.Tensor, *more: Any) -> Any:
            seen.append(x.shape[0] * x.shape[2] // chain._down)
            return inner(chain, x, *more)

        monkeypatch.setattr(SeanetChain, "_whole", counted)
        for chain in (*model.encoder._parts, *model.decoder._parts):
            if chain._local:
                chain._pieces = replace(chain._pieces, frames=2)
        codes, _ = model.encode(wav, 8, counts, "cpp")
        again = model.decode(whole, None, frames, "cpp")
    assert len(seen) > 8
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
        seen: list[int] = []
        inner = SeanetChain._whole

        def counted(chain: Any, x: torch.Tensor, *more: Any) -> Any:
            if chain._convs:
                seen.append(len(x))
            return inner(chain, x, *more)

        monkeypatch.setattr(SeanetChain, "_whole", counted)
        monkeypatch.setattr(seanet_chain, "_PIECE_BYTES", 1)
        codes, again_scale = model.encode(wav, None, counts, "cpp")
        again = model.decode(whole, scale, frames, "cpp")
    assert len(seen) >= 4 * 4
    assert set(seen) == {1}
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
