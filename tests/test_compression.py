"""Waveforms to .ecdc streams and back: the golden files byte for byte, and models that do not fit."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import UNUSUAL, codec_implementations, lively
from ecdc_cases import MONO, STEREO, golden_stream, rounds_as_golden
from torch import Tensor

import fastvoc
from fastvoc import compression, ecdc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DecodeError, DtypeError, LoadError, ShapeError
from fastvoc.hub import published
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig, FloatLm
from fastvoc.models.integer_lm import IntegerLm
from helpers import GoldenCase, assert_golden

RATES = {"mono": "24khz", "stereo": "48khz"}


class Kind:
    """One of the two golden models with its sound and its files."""

    def __init__(self, case: GoldenCase, kind: str, backend: str | None = None) -> None:
        self.case, self.kind, self.name = case, kind, f"encodec_{RATES[kind]}"
        self.codec: Codec = fastvoc.load(case.dir / f"{self.name}.th", backend=backend)
        self.wav = case.inputs[f"audio_{kind}"]
        self.plain, self.coded = (golden_stream(case, kind, end) for end in ("plain", "lm"))

    def lm(self, *, integer: bool) -> Any:
        return fastvoc.load_language_model(self.name, integer=integer, folder=self.case.dir)


@pytest.fixture(params=["mono", "stereo"])
def kind(request: pytest.FixtureRequest, golden: Callable[[str], GoldenCase]) -> Kind:
    return Kind(golden("encodec_ecdc"), request.param)


@pytest.mark.golden
@pytest.mark.parametrize("backend", codec_implementations())
@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_golden_streams(golden: Callable[[str], GoldenCase], name: str, backend: str) -> None:
    kind = Kind(golden("encodec_ecdc"), name, backend)
    own = kind.lm(integer=False)
    # What a processor that rounds in another way writes, it reads.
    coded = kind.coded if rounds_as_golden(kind.case) else fastvoc.compress(kind.codec, kind.wav, 3.0, lm=own)
    for lm, data in ((None, kind.plain), (own, coded)):
        assert fastvoc.compress(kind.codec, kind.wav, 3.0, lm=lm) == data
        wav, rate = fastvoc.decompress(data, kind.codec, lm)
        assert rate == kind.codec.sample_rate
        assert_golden(wav, kind.case, f"decoded_{name}")


@pytest.mark.golden
@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_count(kind: Kind, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert fastvoc.compress(kind.codec, kind.wav, 3.0) == kind.plain
        coded = fastvoc.compress(kind.codec, kind.wav, 3.0, lm=kind.lm(integer=False))
        assert coded == kind.coded or not rounds_as_golden(kind.case)
    finally:
        torch.set_num_threads(before)


@pytest.mark.golden
def test_the_portable_variant_sounds_the_same(kind: Kind) -> None:
    expected = fastvoc.decompress(kind.plain, kind.codec)[0]
    lm = kind.lm(integer=True)
    assert isinstance(lm, IntegerLm)
    for model in (None, lm):
        data = fastvoc.compress(kind.codec, kind.wav, 3.0, lm=model, portable=True)
        assert data[4] == ecdc.PORTABLE
        assert torch.equal(fastvoc.decompress(data, kind.codec, model)[0], expected)
        assert torch.equal(fastvoc.decompress(io.BytesIO(data), kind.codec, model)[0], expected)
    assert fastvoc.compress(kind.codec, kind.wav, 3.0, lm=lm) == data


@pytest.mark.golden
def test_pieces_give_the_same_stream(kind: Kind) -> None:
    for size in (1000, 30000):
        file = io.BytesIO()
        samples = compression.encode_stream(kind.codec, kind.wav.split(size, 1), file, 3.0)
        assert (samples, file.getvalue()) == (kind.wav.shape[1], kind.plain)


@pytest.mark.golden
@pytest.mark.parametrize("samples", [7 * 47520 + 48000, 8 * 47520, 8 * 47520 + 1])
def test_a_group_of_segments_that_ends_the_stream(golden: Callable[[str], GoldenCase], samples: int) -> None:
    kind = Kind(golden("encodec_ecdc"), "stereo")
    wav = torch.randn(2, samples) * 0.1
    made, _ = fastvoc.decompress(fastvoc.compress(kind.codec, wav, 3.0), kind.codec)
    whole = kind.codec.decode(kind.codec.encode(wav, 3.0))
    assert made.shape == whole.shape == wav.shape
    assert (made - whole).abs().max() < 5e-5 * whole.square().mean().sqrt()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_streams_made_on_any_number_of_threads(threads: int) -> None:
    """With a model of the published width, whose probabilities differ by the number of threads."""
    model = EncodecLm(EncodecLmConfig(codebooks=8, layers=2))
    codes = np.random.default_rng(threads).integers(0, 1024, (8, 60)).astype(np.uint16)
    file = io.BytesIO()
    with ecdc.Writer(file, ecdc.Header(MONO, 8, 60 * 320, True), FloatLm(model, threads)) as writer:
        writer.write(codes)
        writer.close(60 * 320)
    reader, lm = ecdc.Reader(io.BytesIO(file.getvalue())), FloatLm(model)
    blocks = list(reader.blocks(lm, lm.others()))
    assert np.array_equal(np.concatenate([block.codes for block in blocks], 1), codes)
    tables = []
    for count in (1, threads):
        steps = FloatLm(model, count).start(8)
        tables.append([steps.step(codes[:, t - 1] if t else None) for t in range(60)])
    same = np.array_equal(*tables)
    assert isinstance(reader.lm, FloatLm)
    assert same if reader.lm.threads == 1 else not same


@pytest.mark.golden
def test_waveforms_of_other_forms(kind: Kind) -> None:
    assert fastvoc.compress(kind.codec, kind.wav.numpy().astype(np.float64), 3.0) == kind.plain
    if kind.kind == "mono":
        assert fastvoc.compress(kind.codec, kind.wav[0], 3.0) == kind.plain
    with pytest.raises(ShapeError, match="expected one waveform, got a batch of 2"):
        fastvoc.compress(kind.codec, torch.stack([kind.wav, kind.wav]))
    with pytest.raises(ShapeError, match="wav: expected"):
        fastvoc.compress(kind.codec, torch.zeros(3, 100))
    with pytest.raises(DtypeError, match="wav: expected a floating-point"):
        fastvoc.compress(kind.codec, torch.zeros(1, 100, dtype=torch.int16))
    broken = kind.wav.clone()
    broken[0, 100] = float("nan")
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        fastvoc.compress(kind.codec, broken, 3.0)
    with pytest.raises(ArgumentError, match="bandwidth: expected one of"):
        fastvoc.compress(kind.codec, kind.wav, 5.0)


@pytest.mark.golden
def test_the_wrong_models(golden: Callable[[str], GoldenCase]) -> None:
    case = golden("encodec_ecdc")
    mono, stereo = Kind(case, "mono"), Kind(case, "stereo")
    with pytest.raises(ArgumentError, match=f"the stream was made with {MONO}, got {STEREO}"):
        fastvoc.decompress(mono.plain, stereo.codec)
    with pytest.raises(ArgumentError, match="needs the floating-point language model, got the integer"):
        fastvoc.decompress(mono.coded, mono.codec, mono.lm(integer=True))
    with pytest.raises(ArgumentError, match="the language model has 2, the stream 4"):
        fastvoc.decompress(mono.coded, mono.codec, stereo.lm(integer=False))
    more = fastvoc.compress(mono.codec, mono.wav, 3.0).replace(b'"nc": 4', b'"nc": 9')
    with pytest.raises(ArgumentError, match="the stream has 9 codebooks, the model 4"):
        fastvoc.decompress(more, mono.codec)
    other = Codec(lively(UNUSUAL["stereo"]), UNUSUAL["stereo"], backend="torch")
    with pytest.raises(ArgumentError, match="streams are of encodec_24khz or encodec_48khz; this is neither"):
        fastvoc.compress(other, torch.zeros(2, 100), other.bandwidths[0])


@pytest.mark.golden
def test_damaged_streams(kind: Kind) -> None:
    for data in (kind.plain[:-1], kind.plain + b"\0", b"", kind.plain[:20]):
        with pytest.raises(DecodeError):
            fastvoc.decompress(data, kind.codec)


@pytest.mark.golden
def test_models_are_loaded_by_the_names_in_the_stream(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str) -> Codec:
        asked.append(name)
        return kind.codec

    def language_model(name: str, *, integer: bool) -> Any:
        asked.append((name, integer))
        return kind.lm(integer=integer)

    monkeypatch.setattr(compression, "load_codec", load)
    monkeypatch.setattr(compression, "load_language_model", language_model)
    expected = fastvoc.decompress(kind.plain)[0]
    own = fastvoc.compress(kind.codec, kind.wav, 3.0, lm=kind.lm(integer=False))
    assert torch.equal(fastvoc.decompress(own)[0], expected)
    coded = fastvoc.compress(kind.codec, kind.wav, 3.0, lm=kind.lm(integer=True))
    assert torch.equal(fastvoc.decompress(coded)[0], expected)
    name = f"facebook/{kind.name}"
    assert asked == [name, name, (kind.name, False), name, (kind.name, True)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served on loopback in the place of the publisher, and an empty cache."""
    folder = tmp_path / "published"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        monkeypatch.setattr(published, "ROOT_URL", f"http://127.0.0.1:{web.server_port}/")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        yield folder
        web.shutdown()
        thread.join()


def random_lm(rate: int) -> dict[str, Tensor]:
    """A state of the published shape, but a small one."""
    config = fastvoc.models.encodec_lm.EncodecLmConfig(rate, 32 if rate == 24000 else 16, dim=16, layers=1, hidden=8)
    return {name: torch.randn(shape) for name, shape in config.tensors()}


def test_published_language_models(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    for name, rate, past in (("encodec_24khz", 24000, 262), ("encodec_48khz", 48000, 525)):
        torch.save(random_lm(rate), server / "lm.th")
        sha = hashlib.sha256((server / "lm.th").read_bytes()).hexdigest()
        file = published.LANGUAGE_MODELS[rate].rpartition("-")[0] + f"-{sha[:8]}.th"
        monkeypatch.setitem(published.LANGUAGE_MODELS, rate, file)
        with pytest.raises(LoadError, match=rf"{file}: not in .*hub/checkpoints, and not to be had from http://127"):
            fastvoc.load_language_model(name)
        (server / "lm.th").rename(server / file)
        lm = fastvoc.load_language_model(name, integer=False)
        assert isinstance(lm, FloatLm)
        config = lm.model.config
        assert (config.sample_rate, config.past, config.heads, config.hidden) == (rate, past, 8, 8)
        (server / file).unlink()
        assert isinstance(fastvoc.load_language_model(name), IntegerLm)


@pytest.mark.golden
def test_language_models_beside_the_codec(golden: Callable[[str], GoldenCase], tmp_path: Path) -> None:
    case = golden("encodec_ecdc")
    lm = fastvoc.load_language_model(case.dir / "encodec_24khz_lm.th")
    assert lm.fingerprint == fastvoc.load_language_model("encodec_24khz", folder=case.dir).fingerprint
    for name in ("encodec_24khz_lm.th", "encodec_lm_24khz.th"):
        (tmp_path / name).write_bytes((case.dir / "encodec_24khz_lm.th").read_bytes())
    with pytest.raises(LoadError, match="more than one language model of encodec_24khz"):
        fastvoc.load_language_model("encodec_24khz", folder=tmp_path)
    with pytest.raises(LoadError, match="family encodec, expected a language model"):
        fastvoc.load_language_model(case.dir / "encodec_24khz.th")
    with pytest.raises(LoadError, match="a language model for"):
        fastvoc.load(case.dir / "encodec_24khz_lm.th")
    (tmp_path / "encodec_24khz.th").write_bytes((case.dir / "encodec_24khz.th").read_bytes())
    assert isinstance(fastvoc.load(tmp_path), Codec)
