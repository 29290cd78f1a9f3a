"""Whole Piper voices: the samples of the whole file, streams bit for bit, and errors before anything runs."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import SMALL, VITS, VITS_1
from onnx_files import export, generator, need_onnx, run_onnx, write_voice
from torch import Tensor

import fastvoc
from fastvoc import piper
from fastvoc.cli import main
from fastvoc.errors import ArgumentError, BackendError, DtypeError, FastvocError, LoadError, ShapeError
from fastvoc.piper.front import sow
from fastvoc.sound.audio import read_audio
from fastvoc.sound.pcm import encode_s16
from helpers import assert_golden, golden, relative_l2

need_onnx("onnxruntime")

IDS = [1, 0, 4, 0, 9, 0, 5, 0, 11, 0, 3, 0, 7, 0, 6, 0, 2]
ALONE = replace(VITS_1, gin_channels=0, num_speakers=0)
SCALES: dict[str, Any] = {"noise_scale": 0.5, "length_scale": 1.25, "noise_w": 0.25}  # of the voices' JSON
QUIET: dict[str, Any] = {"noise_scale": 0, "noise_w": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    write_voice(folder, ALONE, "one.onnx")
    write_voice(folder, VITS, "three.onnx", default_speaker_id=1)
    return folder


@pytest.fixture(scope="module")
def one(folder: Path) -> piper.Voice:
    return piper.load(folder / "one.onnx", seed=3)


@pytest.fixture(scope="module")
def three(folder: Path) -> piper.Voice:
    return piper.load(folder / "three.onnx", seed=3)


def whole(path: Path, scales: tuple[float, ...], sid: int | None = None, seed: int | None = None) -> Tensor:
    """The samples of the whole file in onnxruntime."""
    import onnx

    model = onnx.load(path)
    if seed is not None:
        sow(model.graph.node, seed)
    speaker = {} if sid is None else {"sid": np.array([sid])}
    given = {"input": np.array([IDS]), "input_lengths": np.array([len(IDS)]), "scales": np.array(scales, np.float32)}
    return run_onnx(model.SerializeToString(), **given, **speaker).flatten()


def same(ours: Tensor, theirs: Tensor, bound: float = 2e-6) -> bool:
    assert ours.shape == theirs.shape
    return bool((ours - theirs).abs().max() <= bound * theirs.square().mean().sqrt())


@pytest.mark.golden
@pytest.mark.parametrize("name", ["en_XX-standin-medium", "en_XX-standin-medium_anonymous"])
def test_golden(name: str) -> None:
    case = golden("vits_piper_onnx")
    voice = piper.load(case.dir / f"{name}.onnx")
    lengths, scales = case.inputs["input_lengths"].tolist(), case.inputs["scales"].tolist()
    assert scales[0] == 0
    longest = lengths.index(max(lengths))  # the other item's end hears its padding
    ids = case.inputs["input"][longest]
    latent, speaker = voice.latent(ids, noise_scale=0)
    assert speaker is None
    assert (latent - case.outputs["latent"][longest]).abs().max() < 1e-5
    output = "wav_anonymous" if "anonymous" in name else "wav"
    wavs = case.outputs[output].clone()
    wavs[longest, 0] = voice(ids, noise_scale=0, length_scale=scales[1], noise_w=scales[2])
    assert_golden(wavs, case, output)


def test_one_speaker_sounds_as_the_whole_file(folder: Path, one: piper.Voice) -> None:
    file = folder / "one.onnx"
    assert same(one(IDS, **QUIET), whole(file, (0, 1.25, 0)))
    assert same(one(IDS, noise_scale=0, length_scale=0.5, noise_w=0), whole(file, (0, 0.5, 0)))
    assert one.sample_rate == 16000
    assert repr(one).startswith("Voice(16000 Hz, one speaker, Vocoder(HifiGan")


def test_noise_is_that_of_the_whole_file(folder: Path) -> None:
    file = folder / "one.onnx"
    for seed in (0, 11):
        ours = piper.load(file, seed=seed)(IDS)
        assert same(ours, whole(file, tuple(SCALES.values()), seed=seed))
        assert torch.equal(ours, piper.load(file, seed=seed)(IDS, **SCALES))
    assert relative_l2(ours, piper.load(file, seed=0)(IDS)) > 1e-2
    free = piper.load(file)
    assert relative_l2(free(IDS), free(IDS)) > 1e-2


@pytest.mark.parametrize("sid", [0, 2])
def test_each_speaker_sounds_as_the_whole_file(sid: int, folder: Path, three: piper.Voice) -> None:
    theirs = whole(folder / "three.onnx", (0, 1.25, 0), sid)
    for speaker in (sid, f"s{sid}", np.int64(sid)):
        assert same(three(IDS, speaker=speaker, **QUIET), theirs)
    assert not same(three(IDS, **QUIET), theirs)
    assert torch.equal(three(IDS, **QUIET), three(IDS, speaker=1, **QUIET))
    latent, vector = three.latent(IDS, speaker=sid, **QUIET)
    assert vector is not None
    assert torch.equal(vector, three.vocoder.model.state_dict()["emb_g.weight"][sid])
    assert torch.equal(three.vocoder(latent, speaker=sid), three.vocoder(latent, speaker=vector))
    assert "3 speakers" in repr(three)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
@pytest.mark.parametrize("name", ["one", "three"])
def test_a_stream_is_a_call(name: str, backend: str, folder: Path) -> None:
    voice = piper.load(folder / f"{name}.onnx", backend=backend)
    exact = voice(IDS, exact=True, **QUIET)
    hop, ahead = voice.vocoder.hop, voice.vocoder.latency.frames
    frames = len(exact) // hop
    for chunk in (1, 5, 16, frames - ahead, frames, 1000):
        pieces = list(voice.stream(IDS, chunk_frames=chunk, **QUIET))
        joined = torch.cat(pieces)
        assert torch.equal(joined, exact) if backend == "cpp" else relative_l2(joined, exact) < 1e-5
        assert len(pieces[0]) >= min(chunk, frames) * hop
        assert all(len(piece) == chunk * hop for piece in pieces[1:-1])
        assert len(pieces) >= (frames - ahead) // chunk
    fast = torch.cat(list(voice.stream(IDS, chunk_frames=7, exact=False, **QUIET)))
    assert relative_l2(fast, voice(IDS, **QUIET)) < 5e-6


def test_the_first_piece_comes_before_the_rest_is_made(one: piper.Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    push = fastvoc.Stream.push

    def counted(self: Any, chunk: Tensor, **inputs: Any) -> Tensor:
        given.append(chunk.shape[1])
        return push(self, chunk, **inputs)

    monkeypatch.setattr(fastvoc.Stream, "push", counted)
    pieces = one.stream(IDS, chunk_frames=4)
    assert given == []
    assert len(next(pieces)) >= 4 * one.vocoder.hop
    assert given == [4 + one.vocoder.latency.frames]
    pieces.close()


def test_ids_of_any_kind(one: piper.Voice) -> None:
    expected = one(IDS, **QUIET)
    for ids in (tuple(IDS), torch.tensor(IDS), torch.tensor(IDS, dtype=torch.uint8), np.array(IDS, dtype=np.int32)):
        assert torch.equal(one(ids, **QUIET), expected)
    weights = torch.tensor([float(i) for i in IDS], requires_grad=True)
    with pytest.raises(DtypeError, match="ids: expected whole numbers, got float32"):
        one(weights)
    for phonemes, got in ((None, "None"), ([[3]], r"\[3\]"), ([None], "None")):
        with pytest.raises(DtypeError, match=f"phonemes: expected texts, got {got}"):
            one.ids(phonemes)  # type: ignore[arg-type]
    assert one.ids("abc") == [1, 0, 4, 0, 5, 0, 6, 0, 2]
    assert one.ids([]) == [1, 0, 2]
    with pytest.raises(ArgumentError, match="phonemes: 'z' is not among the 12 that the voice knows"):
        one.ids("az")


WRONG: dict[str, tuple[Any, dict[str, Any], type[FastvocError], str]] = {
    "too high": ([1, 12], {}, ArgumentError, r"ids: expected 0\.\.11, got 12"),
    "negative": ([-1], {}, ArgumentError, r"ids: expected 0\.\.11, got -1"),
    "none": ([], {}, ShapeError, r"ids: expected \[n > 0\]"),
    "a batch": ([[1, 2]], {}, ShapeError, r"ids: .* got \[1, 2\]"),
    "ragged": ([[1], [1, 2]], {}, DtypeError, "ids: expected whole numbers"),
    "floats": ([1.0], {}, DtypeError, "ids: expected whole numbers, got float64"),
    "truths": ([True], {}, DtypeError, "ids: expected whole numbers, got bool"),
    "a text": ("abc", {}, ShapeError, "ids: "),
    "a speaker": (IDS, {"speaker": 0}, ArgumentError, "speaker: this voice has one speaker"),
    "negative noise": (IDS, {"noise_scale": -1}, ArgumentError, "noise_scale: expected a number from 0 to 3.40282e"),
    "no length": (IDS, {"length_scale": 0}, ArgumentError, "length_scale: expected a positive number from .*, got 0"),
    "infinite noise": (IDS, {"noise_scale": 1e39}, ArgumentError, r"noise_scale: .*, got 1e\+39"),
    "a huge noise": (IDS, {"noise_w": 10**5000}, ArgumentError, "noise_w: .*, got an integer of 16610 bits"),
    "no length in float32": (IDS, {"length_scale": 1e-50}, ArgumentError, "length_scale: .*, got 1e-50"),
    "beyond 64 bits": ([1, 10**400], {}, ArgumentError, r"ids: expected 0\.\.11, got an integer of 1329 bits"),
    "not a number": (IDS, {"noise_w": float("nan")}, ArgumentError, "noise_w: "),
    "a word": (IDS, {"noise_w": "much"}, ArgumentError, "noise_w: .* got 'much'"),
    "a tempo": (IDS, {"tempo": 2}, ArgumentError, "tempo: no such argument; expected speaker, noise_scale"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named_before_anything_runs(name: str, one: piper.Voice) -> None:
    ids, options, error, message = WRONG[name]
    for call in (one, one.stream, one.latent):
        with pytest.raises(error, match=message):
            call(ids, **options)


def test_wrong_chunks_and_speakers_are_named(one: piper.Voice, three: piper.Voice) -> None:
    for chunk in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="chunk_frames: expected a positive integer"):
            one.stream(IDS, chunk_frames=chunk)  # type: ignore[arg-type]
    for speaker in (3, -1, True, 0.5):
        with pytest.raises(ArgumentError, match=r"speaker: expected 0\.\.2 or a name"):
            three(IDS, speaker=speaker)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"speaker: 'anna' is not among the 3 names \(s0, s1, s2\)"):
        three(IDS, speaker="anna")
    beyond = piper.Voice(three.vocoder, replace(three.config, speakers={"anna": 3}), three._front, 12)
    with pytest.raises(ArgumentError, match=r"speaker: expected 0\.\.2 or a name, got 3"):
        beyond(IDS, speaker="anna")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"threads": 0}, ArgumentError),
        ({"threads": 1.5}, ArgumentError),
        ({"seed": -1}, ArgumentError),
        ({"seed": 1 << 24}, ArgumentError),
        ({"dtype": "fp8"}, DtypeError),
        ({"backend": "abacus"}, BackendError),
    ],
)
def test_wrong_options_of_load(options: dict[str, Any], error: type[FastvocError], folder: Path) -> None:
    with pytest.raises(error):
        piper.load(folder / "one.onnx", **options)


def test_what_onnxruntime_cannot_run_is_told(one: piper.Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(one._front, "_session", Failing())
    with pytest.raises(ArgumentError, match=r"length_scale and noise_w 0\.5, 1e\+30, 0\.25 .*: out of memory"):
        one(IDS, length_scale=1e30)


def test_a_voice_is_not_pickled(one: piper.Voice) -> None:
    with pytest.raises(DtypeError, match="load the file anew"):
        pickle.dumps(one)
    with pytest.raises(DtypeError, match="path: expected a text or a path, got int"):
        piper.load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": {"noise_scale": -1}}, r"field 'inference\.noise_scale': expected 0 or a positive .*, got -1"),
        ({"inference": {"length_scale": 0}}, r"field 'inference\.length_scale': expected a positive number, got 0"),
        ({"default_speaker_id": 1}, r"field 'default_speaker_id': expected 0\.\.0, got 1"),
    ],
)
def test_values_of_the_json_are_checked(changes: dict[str, Any], message: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes((folder / "one.onnx").read_bytes())
    values = json.loads((folder / "one.onnx.json").read_text())
    (tmp_path / "m.onnx.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(LoadError, match=message):
        piper.load(tmp_path / "m.onnx")


def test_the_front_has_nothing_of_the_decoder(folder: Path) -> None:
    import onnx

    from fastvoc.checkpoints.onnx_decoder import find_decoder
    from fastvoc.checkpoints.onnx_graph import read_graph
    from fastvoc.piper.front import cut

    graph = read_graph(folder / "three.onnx")
    decoder = find_decoder(graph)
    assert decoder.speaker is not None
    front = onnx.load_model_from_string(cut(graph, [decoder.input, decoder.speaker], seed=5))
    kept = {tensor.name for tensor in front.graph.initializer}
    assert kept == {"emb.weight", "emb_g.weight"}
    assert not {"LeakyRelu", "ConvTranspose", "Tanh"} & {node.op_type for node in front.graph.node}
    assert [value.name for value in front.graph.input] == ["input", "input_lengths", "scales", "sid"]
    seeds = [a.f for node in front.graph.node for a in node.attribute if a.name == "seed"]
    assert seeds == [5, 6]
    without = onnx.load_model_from_string(cut(graph, [decoder.speaker]))
    assert [value.name for value in without.graph.input] == ["sid"]
    assert {tensor.name for tensor in without.graph.initializer} == {"emb_g.weight"}


def test_bfloat16(folder: Path, one: piper.Voice) -> None:
    voice = piper.load(folder / "one.onnx", dtype="bf16", backend="torch")
    assert voice.vocoder.dtype is torch.bfloat16
    assert relative_l2(voice(IDS, **QUIET), one(IDS, **QUIET)) < 3e-2


def test_what_is_no_voice_is_refused(folder: Path, tmp_path: Path) -> None:
    import onnx

    with pytest.raises(LoadError, match="no such file"):
        piper.load(tmp_path / "gone.onnx")
    fastvoc.save(fastvoc.load(folder / "one.onnx"), tmp_path / "own.safetensors")
    with pytest.raises(LoadError, match="a safetensors file, expected a Piper voice in ONNX"):
        piper.load(tmp_path / "own.safetensors")
    path = export(tmp_path / "m.onnx", generator(SMALL), (torch.randn(1, 6, 9),), ["mel"])
    with pytest.raises(LoadError, match=r"m\.onnx\.json is missing beside it"):
        piper.load(path)
    text = (folder / "one.onnx.json").read_text()
    (tmp_path / "m.onnx.json").write_text(text)
    with pytest.raises(LoadError, match=r"no Piper voice: inputs \['mel'\], expected \['input', "):
        piper.load(path)

    def edited(change: Callable[[Any], None]) -> Path:
        model = onnx.load(folder / "one.onnx")
        change(model.graph)
        path.write_bytes(model.SerializeToString())
        return path

    def louder(graph: Any) -> None:
        made = graph.output[0].name
        graph.output[0].name = "louder"
        graph.node.append(onnx.helper.make_node("Add", [made, made], ["louder"]))

    def unsqueezed(graph: Any) -> None:
        made = graph.output[0].name
        graph.output[0].name = "longer"
        graph.node.append(onnx.helper.make_node("Identity", [made], ["longer"]))

    def hidden(graph: Any) -> None:
        graph.output[0].name = next(node.output[0] for node in graph.node if node.op_type == "Gather")

    with pytest.raises(LoadError, match="Add that makes 'louder' changes what its decoder makes"):
        piper.load(edited(louder))
    with pytest.raises(LoadError, match="which is none of its outputs"):
        piper.load(edited(hidden))
    assert len(piper.load(edited(unsqueezed))(IDS)) == 2 * len(IDS) * 256
    (tmp_path / "m.onnx.json").write_text(json.dumps({**json.loads(text), "hop_length": 512}))
    with pytest.raises(LoadError, match="hop_length 512 in its JSON, its decoder makes 256"):
        piper.load(path)
    (tmp_path / "m.onnx.json").write_text(json.dumps({**json.loads(text), "inference": {"noise_scale": "loud"}}))
    with pytest.raises(LoadError, match=r"field 'inference\.noise_scale'"):
        piper.load(path)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LoadError, match=f"needs the package {package} .*: pip install {package}"):
        piper.load(folder / "one.onnx")


@dataclass
class _Piper:
    """The part of the package piper-tts that is used, in place of it: a sentence a full stop, a phoneme a letter."""

    session: object
    config: dict[str, Any]

    def phonemize(self, text: str) -> list[list[str]]:
        if "?" in text:
            raise ValueError("questions")
        return [list(sentence.strip()) for sentence in text.split(".")]

    def phonemes_to_ids(self, phonemes: list[str]) -> list[int]:
        ids = self.config["phoneme_id_map"]
        return [number for phoneme in ["^", *phonemes, "$"] for number in (*ids[phoneme], *ids["_"])][:-1]


class _PiperConfig:
    @staticmethod
    def from_dict(values: dict[str, Any]) -> dict[str, Any]:
        return values


@pytest.fixture
def phonemizer(monkeypatch: pytest.MonkeyPatch) -> None:
    package, config = ModuleType("piper"), ModuleType("piper.config")
    package.PiperVoice, config.PiperConfig = _Piper, _PiperConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "piper", package)
    monkeypatch.setitem(sys.modules, "piper.config", config)


@pytest.mark.usefixtures("phonemizer")
def test_text_by_pipers_phonemizer(folder: Path) -> None:
    voice = piper.load(folder / "one.onnx")
    assert voice.sentences("abc. d.") == [voice.ids("abc"), voice.ids("d")]
    with pytest.raises(ArgumentError, match=r"text: piper-tts cannot read it \(ValueError: questions\)"):
        voice.sentences("a?")
    with pytest.raises(DtypeError, match="text: expected a text, got int"):
        voice.sentences(5)  # type: ignore[arg-type]


def test_text_without_pipers_phonemizer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(FastvocError, match="pip install piper-tts; or give phoneme ids"):
        piper.load(folder / "one.onnx").sentences("abc")


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run_main(*arguments: object) -> tuple[int, bytes, str]:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return int(left.value.code or 0), captured.out, captured.err.decode()

    return run_main


def test_the_command_speaks_ids(run: Callable[..., Any], folder: Path, tmp_path: Path, one: piper.Voice) -> None:
    ids, quiet = " ".join(map(str, IDS)), ("--noise-scale", 0, "--noise-w", 0)
    target = tmp_path / "out.wav"
    code, _, told = run("speak", folder / "one.onnx", target, "--ids", ids, "--float", *quiet)
    assert code == 0, told
    wav, rate = read_audio(target)
    assert rate == 16000
    assert torch.equal(wav[0], one(IDS, **QUIET))
    assert "s of speech" in told
    code, out, told = run("speak", folder / "one.onnx", "-", "--ids", ids, "--chunk", 3, *quiet)
    assert code == 0, told
    assert out == encode_s16(one(IDS, exact=True, **QUIET))
    assert "first piece in" in told
    first, second = (run("speak", folder / "one.onnx", "-", "--ids", ids, "--seed", n)[1] for n in (4, 4))
    assert first == second
    assert first != run("speak", folder / "one.onnx", "-", "--ids", ids, "--seed", 5)[1]
    code, out, _ = run("speak", folder / "three.onnx", "-", "--ids", ids, "--speaker", "s2", *quiet)
    assert b"onnx" in run("info", folder / "three.onnx")[1]
    by_number = run("speak", folder / "three.onnx", "-", "--ids", ids, "--speaker", 2, *quiet)
    assert (code, out) == by_number[:2]


@pytest.mark.usefixtures("phonemizer")
def test_the_command_speaks_text(
    run: Callable[..., Any], folder: Path, tmp_path: Path, one: piper.Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = ("--noise-scale", 0, "--noise-w", 0)
    sentences = [one.ids("abc"), one.ids("d")]
    code, out, told = run("speak", folder / "one.onnx", "-", "--text", "abc. d", *quiet)
    assert code == 0, told
    assert out == encode_s16(torch.cat([one(ids, exact=True, **QUIET) for ids in sentences]))
    monkeypatch.setattr(sys, "stdin", iter(["abc\n", "\n", "d\n"]))
    assert run("speak", folder / "one.onnx", "-", *quiet)[1] == out
    monkeypatch.setattr(sys, "stdin", iter(["\n"]))
    code, _, told = run("speak", folder / "one.onnx", tmp_path / "out.wav")
    assert (code, told) == (2, "error: --text: there is nothing to say\n")
    monkeypatch.setattr(sys, "stdin", iter(["\n"]))
    assert run("speak", folder / "one.onnx", "-") == (2, b"", told)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xffb\n"), encoding="utf-8"))
    code, _, told = run("speak", folder / "one.onnx", "-")
    assert (code, told) == (2, "error: standard input: expected text in utf-8 (invalid start byte)\n")
    monkeypatch.setattr(sys, "stdin", iter(["a\udcff\n"]))
    assert "error: standard input: expected text in utf-8" in run("speak", folder / "one.onnx", "-")[2]


def test_a_missing_phonemizer_is_told_before_text_is_waited_for(
    run: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited() -> str:
        pytest.fail("standard input was read")

    monkeypatch.setitem(sys.modules, "piper", None)
    monkeypatch.setattr(sys, "stdin", iter(waited, ""))
    code, _, told = run("speak", folder / "one.onnx", "-")
    assert code == 2
    assert "pip install piper-tts; or give phoneme ids" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "--ids", "1 2", "--text", "a"), "--text, --ids: expected one of them, got both"),
        (("-", "--ids", "1 two"), "--ids: expected whole numbers, got 'two'"),
        (("-", "--ids", "1 " + 5000 * "9"), "--ids: expected whole numbers, got '99"),
        (("-", "--ids", "1 99"), "ids: expected 0..11, got 99"),
        (("-", "--ids", "1 2", "--float"), "--float: only for a .wav file, got -"),
        (("out.mp3", "--ids", "1 2"), "OUT: expected a name that ends in .wav or .flac"),
        (("-", "--ids", "1 2", "--speaker", "s1"), "speaker: this voice has one speaker"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: tuple[str, ...], message: str, run: Callable[..., Any], folder: Path
) -> None:
    code, out, told = run("speak", folder / "one.onnx", *arguments)
    assert (code, out) == (2, b"")
    assert f"error: {message}" in told
