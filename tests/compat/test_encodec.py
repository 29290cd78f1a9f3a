"""The `encodec` package's classes: published files found and checked, frames, bandwidths, the examples people have."""

from __future__ import annotations

import copy
import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_models import STEREO, codec_implementations, lively, noise

from fastvoc.compat.encodec import EncodecModel, convert_audio
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.hub.published import CODECS
from fastvoc.loading import model_of, read_checkpoint
from fastvoc.models.encodec import Encodec
from fastvoc.runtime.registry import use_backend
from helpers import assert_golden, golden

IMPLS = codec_implementations()


def upstream(name: str) -> EncodecModel:
    return EncodecModel(model_of(read_checkpoint(golden(name).dir)))


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_24k(impl: str) -> None:
    case, model = golden("encodec_24k"), upstream("encodec_24k")
    audio = case.inputs["audio"]
    with use_backend(impl):
        for bandwidth in model.target_bandwidths:
            model.set_target_bandwidth(bandwidth)
            ((codes, scale),) = model.encode(audio)
            name = f"bw{bandwidth:g}".replace(".", "p")
            assert scale is None
            assert_golden(codes, case, f"codes_{name}")
            assert_golden(model.decode([(codes, None)]), case, f"audio_{name}")
            assert_golden(model.decode([(codes.int(), None)]), case, f"audio_{name}")
        model.set_target_bandwidth(6.0)
        assert_golden(model(audio), case, "forward_bw6")
        codes = case.outputs["codes_bw6"].transpose(0, 1)
        assert_golden(model.quantizer.decode(codes), case, "mid.quantized_bw6")
        latent = model.encoder(audio)
        assert_golden(latent, case, "mid.latent")
        assert torch.equal(model.quantizer.encode(latent, model.frame_rate, 6.0), codes)
        assert_golden(model.decoder(model.quantizer.decode(codes)), case, "audio_bw6")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_48k(impl: str) -> None:
    case, model = golden("encodec_48k"), upstream("encodec_48k")
    with use_backend(impl):
        model.set_target_bandwidth(3.0)
        frames = model.encode(case.inputs["audio"])
        for i, (codes, _) in enumerate(frames):
            assert_golden(codes, case, f"codes_bw3_seg{i}")
        assert_golden(torch.cat([scale for _, scale in frames if scale is not None]), case, "scale")
        assert_golden(model.decode(frames), case, "audio_bw3")
        assert model(case.inputs["audio"]).shape == case.inputs["audio"].shape


def test_properties() -> None:
    mono, stereo = EncodecModel.encodec_model_24khz(pretrained=False), EncodecModel.encodec_model_48khz(False)
    assert (mono.name, mono.sample_rate, mono.channels, mono.normalize) == ("encodec_24khz", 24000, 1, False)
    assert (mono.segment, mono.segment_length, mono.segment_stride) == (None, None, None)
    assert (mono.frame_rate, mono.bits_per_codebook, mono.bandwidth) == (75, 10, None)
    assert mono.target_bandwidths == [1.5, 3.0, 6.0, 12.0, 24.0]
    assert (stereo.name, stereo.sample_rate, stereo.channels, stereo.normalize) == ("encodec_48khz", 48000, 2, True)
    assert (stereo.segment, stereo.segment_length, stereo.segment_stride) == (1.0, 48000, 47520)
    assert (stereo.frame_rate, stereo.overlap, stereo.quantizer.n_q) == (150, 0.01, 16)
    assert [mono.quantizer.get_num_quantizers_for_bandwidth(75, b) for b in (None, 0, 0.1, 6)] == [32, 32, 1, 8]
    assert mono.quantizer.get_bandwidth_per_quantizer(75) == 750
    assert not mono.training
    # 14.852 million and 14.856 million in the published files, with the magnitudes of weight norm.
    assert sum(p.numel() for p in mono.parameters()) == 14_851_810 - 4_993 + 32 * 1024 * 128
    assert sum(p.numel() for p in stereo.parameters()) == 14_856_294 + 16 * 1024 * 128
    with pytest.raises(ValueError, match=r"bandwidth: expected one of 3, 6, 12, 24 kbit/s, got 1\.5"):
        stereo.set_target_bandwidth(1.5)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["encodec_24k", "encodec_48k"])
def test_states_under_upstream_names(name: str) -> None:
    model = upstream(name)
    other = EncodecModel(Encodec(model._model.config).eval())
    wav = golden(name).inputs["audio"][:1]
    assert not torch.equal(other(wav), model(wav))
    (path,) = golden(name).dir.glob("*.th")
    other.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        assert torch.equal(other(wav), model(wav))
    other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


def test_all_codebooks_without_a_target() -> None:
    model = EncodecModel(lively(STEREO))
    wav = noise(STEREO, 9000)
    frames = model.encode(wav)
    assert [codes.shape[1] for codes, _ in frames] == [6, 6, 6]
    assert [scale.shape for _, scale in frames if scale is not None] == [(1, 1)] * 3
    assert model.decode(frames).shape[2] >= 9000
    with pytest.raises(ArgumentError, match="some have a scale"):
        model.decode([frames[0], (frames[1][0], None)])
    with pytest.raises(ShapeError, match="at least one frame"):
        model.decode([])
    with pytest.raises(ArgumentError, match="codes"):
        model.decode([(frames[0][0] + 64, frames[0][1])])
    mono = EncodecModel.encodec_model_24khz(pretrained=False)
    with pytest.raises(ShapeError, match="one frame, got 2"):
        mono.decode([(torch.zeros(1, 2, 3, dtype=torch.int64), None)] * 2)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small file under a published kind of name, which its hash fits."""
    data = (golden("encodec_24k").dir / "encodec_24khz.th").read_bytes()
    name = f"encodec_24khz-{hashlib.sha256(data).hexdigest()[:8]}.th"
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / name).write_bytes(data)
    (folder / "config.json").write_bytes((golden("encodec_24k").dir / "config.json").read_bytes())
    monkeypatch.setitem(CODECS, 24000, name)
    return folder / name


@pytest.fixture
def server(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serves the folder on loopback in the place of the publisher; the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(published.parent))) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        monkeypatch.setattr("fastvoc.hub.published.ROOT_URL", f"http://127.0.0.1:{web.server_port}/")
        yield asked
        web.shutdown()
        thread.join()


@pytest.mark.golden
def test_a_repository_folder(published: Path) -> None:
    model = EncodecModel.encodec_model_24khz(repository=published.parent)
    assert model._model.config.n_filters == 6
    with pytest.raises(ArgumentError, match=r"has no file encodec_48khz-7e698e3e\.th"):
        EncodecModel.encodec_model_48khz(repository=published.parent)
    with pytest.raises(ArgumentError, match="has no file"):
        EncodecModel.encodec_model_24khz(repository=published.parent / "nowhere")
    published.write_bytes(published.read_bytes() + b"x")
    with pytest.raises(LoadError, match="SHA-256"):
        EncodecModel.encodec_model_24khz(repository=str(published.parent))


@pytest.mark.golden
def test_download_once(published: Path, server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    cached = tmp_path / "home" / "hub" / "checkpoints" / published.name
    cached.parent.mkdir(parents=True)
    (cached.parent / "config.json").write_bytes((published.parent / "config.json").read_bytes())
    for _ in range(2):
        assert EncodecModel.encodec_model_24khz()._model.config.n_filters == 6
    assert server == [f"/{published.name}"]
    assert cached.read_bytes() == published.read_bytes()
    cached.unlink()
    published.write_bytes(published.read_bytes()[:-1] + b"x")
    with pytest.raises(LoadError, match=r"not to be had from http://127.*hash"):
        EncodecModel.encodec_model_24khz()
    assert [path.name for path in cached.parent.iterdir()] == ["config.json"]
    with pytest.raises(LoadError, match=r"encodec_48khz-7e698e3e.th: not in .*not to be had"):
        EncodecModel.encodec_model_48khz()


def test_codebooks_under_upstream_s_names() -> None:
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    quantizer = model.quantizer
    latent = torch.randn(2, 128, 5)
    assert len(quantizer.vq.layers) == quantizer.n_q == 32
    assert (quantizer.bins, quantizer.dimension) == (1024, 128)
    first = quantizer.vq.layers[0]
    assert first.codebook is first._codebook.embed is quantizer.codebooks[0]
    assert (first.codebook_size, first._codebook.codebook_size) == (1024, 1024)
    codes = quantizer.vq.encode(latent, 4)
    assert torch.equal(codes[0], first.encode(latent))
    assert torch.equal(quantizer.vq.decode(codes[:1]), first.decode(codes[0]))
    assert torch.equal(quantizer.vq.decode(codes), quantizer.decode(codes))
    assert quantizer.vq.encode(latent).shape == (32, 2, 5)
    assert not any("vq" in name for name in model.state_dict())
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.quantizer.vq.layers[0].codebook.zero_()
    assert not copied.quantizer.codebooks[0].any()
    assert quantizer.codebooks[0].any()


def test_convert_audio() -> None:
    wav = torch.randn(2, 4410) * 0.1
    assert convert_audio(wav, 44100, 24000, 1).shape == (1, 2400)
    assert convert_audio(wav[:1], 44100, 48000, 2).shape == (2, 4800)
    for sr, target in ((44100, 24000), (24000, 44100), (48000, 16000), (8000, 48000), (22050, 24000), (24000, 24000)):
        for samples in (0, 1, 2, 3, 7, 100, 4411):
            made = convert_audio(torch.ones(2, 1, samples), sr, target, 2)
            assert made.shape == (2, 2, -(-samples * target // sr)), (sr, target, samples)
    with pytest.raises(ArgumentError, match="sr, target_sr"):
        convert_audio(wav[:, :0], 0, 24000, 1)
    with pytest.raises(DtypeError, match=r"wav: expected floating-point samples in -1\.\.1 .* got torch\.int16"):
        convert_audio(wav.short(), 44100, 24000, 1)
    assert convert_audio(wav[None], 44100, 44100, 2).equal(wav[None])
    assert torch.equal(convert_audio(wav, 24000, 24000, 1), wav.mean(0, keepdim=True))
    with pytest.raises(ShapeError, match="wav"):
        convert_audio(torch.randn(3, 100), 24000, 24000, 1)
    with pytest.raises(ArgumentError, match="target_channels"):
        convert_audio(wav, 24000, 24000, 3)


@pytest.mark.golden
def test_people_s_example(published: Path) -> None:
    """What the package's README shows, with only the import changed."""
    model = EncodecModel.encodec_model_24khz(repository=published.parent)
    model.set_target_bandwidth(6.0)
    wav, sr = torch.randn(2, 44100) * 0.1, 44100
    wav = convert_audio(wav, sr, model.sample_rate, model.channels)
    with torch.no_grad():
        encoded_frames = model.encode(wav.unsqueeze(0))
    codes = torch.cat([encoded[0] for encoded in encoded_frames], dim=-1)
    assert codes.shape == (1, 8, 75)
    assert model.decode(encoded_frames).shape == (1, 1, 24000)
