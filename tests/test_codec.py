"""`Codec`: shapes in and out, arguments checked before any computation, saving and loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import MONO, STEREO, UNUSUAL, codec_implementations, lively, noise

import fastvoc
from fastvoc.checkpoints import Checkpoint
from fastvoc.codec import Codec, Codes
from fastvoc.errors import ArgumentError, BackendError, DtypeError, LoadError, ShapeError
from fastvoc.models.dac import DAC_16K, DAC_24K, DAC_44K
from fastvoc.models.encodec_config import ENCODEC_24K, ENCODEC_48K, EncodecConfig
from fastvoc.models.mimi_config import MIMI
from fastvoc.models.snac import SNAC_24K, SNAC_32K, SNAC_44K
from helpers import assert_golden, golden

IMPLS = codec_implementations()
LOW, HIGH = UNUSUAL["mono"].bandwidths


def codec(config: EncodecConfig = UNUSUAL["mono"], backend: str | None = "torch") -> Codec:
    return Codec(lively(config), config, backend=backend)


@pytest.mark.golden
@pytest.mark.parametrize("backend", IMPLS)
def test_golden_through_load(backend: str) -> None:
    case = golden("encodec_24k")
    mono = fastvoc.load(case.dir, backend=backend)
    codes = mono.encode(case.inputs["audio"])
    assert_golden(codes.codes, case, "codes_bw6")
    assert_golden(mono.decode(codes), case, "forward_bw6")
    assert_golden(mono(case.inputs["audio"]), case, "forward_bw6")
    assert_golden(mono.decode(case.outputs["codes_bw6"]), case, "audio_bw6")
    case = golden("encodec_48k")
    stereo = fastvoc.load(case.dir, backend=backend)
    codes = stereo.encode(case.inputs["audio"], 3.0)
    assert [s.shape[2] for s in codes.segments] == [150, 24]
    assert codes.codes.shape == (1, 2, 174)
    assert codes.scale is not None
    assert_golden(codes.scale.T, case, "scale")
    assert_golden(stereo.decode(codes.segments, codes.scale), case, "audio_bw3")
    assert torch.equal(stereo.decode(codes), stereo.decode(codes.segments, codes.scale)[:, :, :55080])


@pytest.mark.golden
@pytest.mark.parametrize("name", ["encodec_24k", "encodec_48k", "hf_encodec_24k_small", "hf_encodec_48k_small"])
def test_save_and_load(name: str, tmp_path: Path) -> None:
    case = golden(name)
    first = fastvoc.load(case.dir)
    fastvoc.save(first, tmp_path / "codec.safetensors")
    second = fastvoc.load(tmp_path / "codec.safetensors")
    assert isinstance(second, Codec)
    assert second.config == first.config
    wav = case.inputs["audio"][:, :, :9000]
    ours, theirs = (c.encode(wav, c.bandwidths[-1]) for c in (first, second))
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.equal(first.decode(ours), second.decode(theirs))
    fastvoc.save(second, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "codec.safetensors").read_bytes()
    fastvoc.save(first, tmp_path / "small.safetensors", dtype="fp16")
    assert fastvoc.load(tmp_path / "small.safetensors").decode(ours).isfinite().all()


@pytest.mark.native
@pytest.mark.parametrize("name", UNUSUAL)
def test_every_layer_is_explained_and_fused(name: str) -> None:
    rows = list(fastvoc.explain(codec(UNUSUAL[name], backend=None)))
    assert all(row.chosen == "cpp" for row in rows)
    explained = {tuple(row.layer.split(".")[:3]) for row in rows}
    for tensor, _ in UNUSUAL[name].tensors():
        part, layers, number, *_ = tensor.split(".")
        assert (part, layers, number) in explained or part == "quantizer", tensor
    assert {("quantizer", "encode"), ("quantizer", "decode")} <= explained


def test_shapes_come_back() -> None:
    mono, stereo = codec(), codec(STEREO)
    wav = noise(MONO, 1000, 3)
    for x in (wav[0, 0], wav[0], wav, wav[0, 0].numpy(), wav.double()):
        codes = mono.encode(x, LOW)
        assert codes.codes.shape == (3 if x.ndim == 3 else 1, 2, 4)
        assert codes.codes.dtype == torch.int64
        assert mono.decode(codes).shape == x.shape == mono(x, LOW).shape
        assert (codes.length, codes.sample_rate, codes.bandwidth, codes.scale) == (1000, 24000, LOW, None)
    wav = noise(STEREO, 9000, 2)
    for x in (wav[0], wav):
        codes = stereo.encode(x, 0.6)
        assert stereo.decode(codes).shape == x.shape
        assert codes.scale is not None
        assert codes.scale.shape == (len(codes.segments[0]), 3)
    assert "0.6 kbit/s, 9000 samples at 16000 Hz" in repr(codes)
    assert "2 channels, 16000 Hz, 0.6, 1.5 kbit/s" in repr(stereo)
    assert mono.warmup() is mono
    assert stereo.warmup(0.3) is stereo


def test_results_are_ordinary_tensors() -> None:
    mono = codec()
    codes = mono.encode(noise(MONO, 700, 2), HIGH)
    codes.codes[0, 0, 0] = 3
    wav = mono.decode(codes)
    wav += 1.0
    assert not wav.is_inference()
    assert codes.to("cpu").codes.device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_holds_codes(dtype: torch.dtype) -> None:
    mono = codec()
    codes = mono.encode(noise(MONO, 2000, 2), HIGH).codes
    expected = mono.decode(codes)
    assert expected.shape == (2, 1, 7 * 320)
    assert torch.equal(mono.decode(codes.to(dtype)), expected)
    assert torch.equal(mono.decode(codes.to(dtype).numpy()), expected)
    assert torch.allclose(mono.decode(codes[0].to(dtype)), expected[0], atol=1e-5)
    assert torch.allclose(mono.decode(codes, lengths=[2000, 1999])[0], expected[0, :, :2000], atol=1e-5)


def test_fewer_codebooks_decode() -> None:
    mono = codec()
    wav = noise(MONO, 2000)
    codes = mono.encode(wav, HIGH).codes
    few = mono.encode(wav, LOW).codes
    assert torch.equal(codes[:, :2], few)
    assert torch.equal(mono.decode(codes[:, :2]), mono.decode(few))
    assert mono.decode(codes[:, :1]).shape == (1, 1, 2240)


def test_lengths_of_plain_codes() -> None:
    mono = codec()
    wav = noise(MONO, 3000, 2)
    codes = mono.encode(wav, HIGH, lengths=[3000, 500])
    plain = codes.codes.clone()
    assert not plain[1, :, 2:].any()
    plain[1, :, 2:] = 9999  # padding is not looked at
    ours = mono.decode(plain, lengths=[3000, 500])
    assert torch.equal(ours, mono.decode(codes))
    assert not ours[1, :, 500:].any()
    assert torch.allclose(ours[1, :, :500], mono(wav[1, :, :500], HIGH), atol=1e-5)


class NeverRuns(torch.nn.Module):
    """A model that must not be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, *_: Any) -> None:
        raise AssertionError("computed before the arguments were checked")

    decode = encode


@pytest.mark.parametrize(
    ("codes", "error", "match"),
    [
        (torch.full((1, 2, 5), 64), ArgumentError, r"expected values in 0\.\.63, got 64\.\.64"),
        (torch.full((1, 2, 5), -1), ArgumentError, r"got -1\.\.-1"),
        (torch.full((1, 2, 5), -1, dtype=torch.int8), ArgumentError, r"got -1\.\.-1"),
        (np.full((1, 2, 5), 2**63 + 5, np.uint64), ArgumentError, "codes: expected values"),
        (torch.zeros(1, 9, 5, dtype=torch.int64), ShapeError, r"K in 1\.\.8, B, T > 0, got \[1, 9, 5\]"),
        (torch.zeros(1, 0, 5, dtype=torch.int64), ShapeError, r"got \[1, 0, 5\]"),
        (torch.zeros(1, 2, 0, dtype=torch.int64), ShapeError, r"got \[1, 2, 0\]"),
        (torch.zeros(0, 2, 5, dtype=torch.int64), ShapeError, r"got \[0, 2, 5\]"),
        (torch.zeros(5, dtype=torch.int64), ShapeError, r"got \[5\]"),
        (torch.zeros(1, 1, 2, 5, dtype=torch.int64), ShapeError, r"got \[1, 1, 2, 5\]"),
        (torch.zeros(1, 2, 5), DtypeError, "torch.float32"),
        (torch.zeros(1, 2, 5, dtype=torch.bool), DtypeError, "torch.bool"),
        (np.zeros((1, 2, 5)), DtypeError, "numpy array of float64"),
        ([[1, 2], [3, 4]], DtypeError, "list"),
        ("codes", DtypeError, "str"),
        ([], DtypeError, "list"),
        (None, DtypeError, "NoneType"),
        ([torch.zeros(1, 2, 5, dtype=torch.int64)] * 2, ShapeError, "does not cut signals into segments"),
    ],
)
def test_wrong_codes_never_reach_a_kernel(codes: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Codec(NeverRuns(), UNUSUAL["mono"]).decode(codes)


@pytest.mark.parametrize(
    ("frames", "scale", "error", "match"),
    [
        ([12, 13, 5], None, ShapeError, r"segments of 13\.\.13 frames"),
        ([13, 14], None, ShapeError, r"got \[13, 14\]"),
        ([5, 5], None, ShapeError, r"got \[5, 5\]"),
        ([13, 2], torch.ones(1, 3), ShapeError, r"scale: expected \[1, 2\]"),
        ([13, 2], torch.tensor([[1.0, torch.nan]]), ArgumentError, "scale: expected finite volumes above 0, got nan"),
        ([13, 2], torch.tensor([[1.0, torch.inf]]), ArgumentError, "got inf"),
        ([13, 2], torch.tensor([[1.0, -1.0]]), ArgumentError, "got -1"),
        ([13, 2], torch.tensor([[0.0, 1.0]]), ArgumentError, "got 0"),
        ([13, 2], torch.ones(1, 2, dtype=torch.int64), DtypeError, "scale"),
    ],
)
def test_wrong_segments(frames: list[int], scale: Any, error: type[Exception], match: str) -> None:
    segments = [torch.zeros(1, 2, n, dtype=torch.int64) for n in frames]
    with pytest.raises(error, match=match):
        Codec(NeverRuns(), STEREO).decode(segments, scale)


def test_segments_must_belong_together() -> None:
    stereo, ints = Codec(NeverRuns(), STEREO), {"dtype": torch.int64}
    with pytest.raises(ShapeError, match=r"segment 1: expected \[1, 2, T\]"):
        stereo.decode([torch.zeros(1, 2, 13, **ints), torch.zeros(1, 3, 13, **ints)])
    with pytest.raises(ShapeError, match="the lengths call for segments"):
        stereo.decode([torch.zeros(1, 2, 13, **ints)], lengths=[9000])
    with pytest.raises(ArgumentError, match="does not normalise"):
        Codec(NeverRuns(), UNUSUAL["mono"]).decode(torch.zeros(1, 2, 5, **ints), torch.ones(1, 1))
    codes = codec(STEREO).encode(noise(STEREO, 3000), 0.6)
    with pytest.raises(ArgumentError, match="16000 Hz, this model is for 24000 Hz"):
        codec().decode(codes)
    with pytest.raises(ArgumentError, match="only with plain codes"):
        stereo.decode(codes, lengths=[3])
    bad = Codes(codes.segments, codes.scale, (9000,), 0.6, 16000)
    with pytest.raises(ShapeError, match="the lengths call for segments"):
        stereo.decode(bad)


@pytest.mark.parametrize(
    ("wav", "error", "match"),
    [
        (torch.zeros(2, 100), ShapeError, r"expected \[S\], \[1, S\] or \[B, 1, S\], got \[2, 100\]"),
        (torch.zeros(100, 1), ShapeError, "transposed"),
        (torch.zeros(0), ShapeError, r"got \[0\]"),
        (torch.zeros(1, 1, 0), ShapeError, r"got \[1, 1, 0\]"),
        (torch.zeros(1, 1, 1, 5), ShapeError, r"got \[1, 1, 1, 5\]"),
        (torch.zeros(100, dtype=torch.int16), DtypeError, "int16"),
        (np.zeros(100, np.int32), DtypeError, "int32"),
        ([0.0, 1.0], DtypeError, "list"),
        (torch.tensor([0.0, torch.nan]), ArgumentError, "NaN or infinity"),
        (torch.tensor([[[0.0]], [[torch.inf]]]), ArgumentError, "in item 1"),
    ],
)
def test_wrong_waveforms(wav: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Codec(NeverRuns(), UNUSUAL["mono"]).encode(wav, LOW)


def test_other_wrong_arguments() -> None:
    mono, stereo = Codec(NeverRuns(), UNUSUAL["mono"]), Codec(NeverRuns(), STEREO)
    with pytest.raises(ArgumentError, match=r"bandwidth: expected one of 0\.9, 3\.6 kbit/s, got 6\.0"):
        mono.encode(torch.zeros(100), 6.0)
    with pytest.raises(ShapeError, match=r"a mono signal; pass wav\.expand\(2, -1\)"):
        stereo.encode(torch.zeros(100), 0.6)
    with pytest.raises(ShapeError, match="lengths: only for a batch"):
        mono.encode(torch.zeros(100), LOW, lengths=[100])
    for lengths, error in (([5, 5], ShapeError), ([101], ArgumentError), ([0], ArgumentError), ([1.5], DtypeError)):
        with pytest.raises(error, match="lengths"):
            mono.encode(torch.zeros(1, 1, 100), LOW, lengths=lengths)
    assert codec().encode(torch.tensor([[[0.1, torch.nan]]]), LOW, lengths=[1]).codes.shape == (1, 2, 1)


@pytest.mark.native
def test_forced_backend_refuses_aloud() -> None:
    half = Codec(lively(MONO).half(), MONO, backend="cpp")
    with pytest.raises(BackendError, match="float16"):
        half.encode(torch.zeros(1000), 1.0)


def test_a_codec_is_no_vocoder(tmp_path: Path) -> None:
    config = UNUSUAL["mono"]
    fastvoc.save(Checkpoint(config, lively(config).state_dict(), "test"), tmp_path / "codec.safetensors")
    assert isinstance(fastvoc.load(tmp_path / "codec.safetensors"), Codec)
    with pytest.raises(LoadError, match="no such file"):
        fastvoc.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "config", [DAC_16K, DAC_24K, DAC_44K, SNAC_24K, SNAC_32K, SNAC_44K, MIMI, ENCODEC_24K, ENCODEC_48K]
)
def test_a_bandwidth_as_printed_is_the_models_own(config: Any) -> None:
    codec = Codec.__new__(Codec)
    codec.config = config
    for books, own in enumerate(config.bandwidths, 1):
        printed = float(f"{own:g}")
        assert codec._wanted(printed, None) == codec._wanted(own, None)
        if not isinstance(config, EncodecConfig):
            assert codec.codebooks(printed) == books == codec.codebooks(codebooks=np.int64(books))  # type: ignore[arg-type]
    for wrong in (config.bandwidths[0] * 1.001, math.nan, "6"):
        with pytest.raises(ArgumentError, match="bandwidth: expected one of"):
            codec.check_bandwidth(wrong)
