"""The decoder of a VITS: golden cases, one speaker for each item, streams of several speakers, wrong speakers."""

from __future__ import annotations

import json
import pathlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import VITS, VITS_1, random_state, write_vits
from hypothesis import given
from hypothesis import strategies as st
from recording import Rerun
from safetensors.torch import load_file, save_file
from stream_families import QUICK, mel_of, randomised, vocoder
from torch import Tensor

import fastvoc
from fastvoc.checkpoints import Checkpoint, save
from fastvoc.cli import main
from fastvoc.errors import ArgumentError, DeviceError, DtypeError, FastvocError, LoadError, ShapeError
from fastvoc.graphs.graphed import Graphed
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.quantization import calibrate
from fastvoc.vocoder import Vocoder
from helpers import assert_golden, golden, implementations, relative_l2

IMPLS = implementations("mrf")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_transformers(impl: str) -> None:
    case = golden("vits_hf")
    voc, latent = fastvoc.load(case.dir, backend=impl), case.inputs["latent"]
    assert (voc.n_mels, voc.config.gin_channels, voc.config.num_speakers) == (16, 12, 5)
    for speaker in (3, [3], torch.tensor(3), np.int64(3), case.inputs["speaker_embedding"]):
        assert_golden(voc(latent, speaker=speaker)[:, None], case, "wav")
    assert_golden(voc(latent[0], speaker=case.inputs["speaker_embedding"].flatten())[None, None], case, "wav")
    assert_golden(voc(latent)[:, None], case, "wav_no_speaker")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("form", ["weight_g", "parametrizations"])
def test_golden_transformers_with_weight_norm(form: str, impl: str, tmp_path: Path) -> None:
    case = golden("vits_hf")
    names = ("weight_g", "weight_v") if form == "weight_g" else [f"{form}.weight.original{i}" for i in (0, 1)]
    tensors = {}
    for name, tensor in load_file(case.dir / "model.safetensors").items():
        if name.startswith("decoder.") and name.endswith(".weight") and "cond" not in name:
            pair = tensor.flatten(1).norm(dim=1)[:, None, None], 3 * tensor
            tensors |= {name.removesuffix("weight") + n: t.contiguous() for n, t in zip(names, pair, strict=True)}
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((case.dir / "config.json").read_bytes())
    assert_golden(fastvoc.load(tmp_path, backend=impl)(case.inputs["latent"], speaker=3)[:, None], case, "wav")


def messages(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: numbers as they are, texts and messages as bytes."""

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value

    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        field, kind = divmod(number(), 8)
        if kind == 0:
            found.append((field, number()))
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else number()
        found.append((field, data[at : at + size]))
        at += size
    return found


def initializers(path: Path) -> dict[str, Tensor]:
    """The float32 tensors in an ONNX file by name."""
    (graph,) = (value for field, value in messages(path.read_bytes()) if field == 7)
    tensors = {}
    for field, value in messages(graph):
        if field == 5:
            parts = messages(value)
            shape = [size for number, size in parts if number == 1]
            if all(isinstance(size, int) for size in shape) and (2, 1) in parts:
                raw = next(raw for number, raw in parts if number == 9)
                name = next(name for number, name in parts if number == 8).decode()
                tensors[name] = torch.tensor(struct.unpack(f"<{len(raw) // 4}f", raw)).reshape(shape)
    return tensors


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_piper(impl: str, tmp_path: Path) -> None:
    case = golden("vits_piper_onnx")
    name = "en_XX-standin-medium.onnx"
    weights = {k: t for k, t in initializers(case.dir / name).items() if k.startswith("dec.")}
    assert len(weights) == 45
    tree = {"state_dict": {f"model_g.{k}": t for k, t in weights.items()}}
    torch.save(tree, tmp_path / "epoch=1-step=2.ckpt")
    (tmp_path / "config.json").write_bytes((case.dir / f"{name}.json").read_bytes())
    voc = fastvoc.load(tmp_path, backend=impl)
    assert voc.sample_rate == 22050
    assert_golden(voc(case.outputs["latent"])[:, None], case, "wav")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("exact", [False, True])
def test_each_item_has_its_own_speaker(impl: str, exact: bool, nan_poison: None) -> None:
    voc, lengths = vocoder("vits", impl), [9, 23, 1]
    latents = torch.randn(3, voc.n_mels, 23)
    for i, n in enumerate(lengths):
        latents[i, :, n:] = torch.nan
    for speakers in (torch.randn(3, 5), [2, 0, 1]):
        wavs = voc(latents, lengths, speaker=speakers, exact=exact)
        for i, n in enumerate(lengths):
            one = voc(latents[i, :, :n], speaker=speakers[i], exact=exact)
            assert _alike(wavs[i, : len(one)], one, impl)
            assert not wavs[i, len(one) :].any()
    for speaker in (1, torch.randn(5)):
        wavs = voc(latents, lengths, speaker=speaker, exact=exact)
        assert _alike(wavs[0, : 9 * voc.hop], voc(latents[0, :, :9], speaker=speaker, exact=exact), impl)


def _alike(ours: torch.Tensor, alone: torch.Tensor, impl: str) -> bool:
    """Bit for bit, but for torch, whose sums depend on its threads."""
    return torch.equal(ours, alone) if impl == "cpp" else relative_l2(ours, alone) < 1e-5


@pytest.mark.parametrize("impl", IMPLS)
def test_a_speaker_shifts_the_first_convolution(impl: str) -> None:
    model = vocoder("vits", impl).model
    latent, vector = torch.randn(1, 6, 12), torch.randn(5)
    folded = randomised(model.config).model
    folded.conv_pre.bias.add_(model.cond.weight[:, :, 0] @ vector + model.cond.bias)
    got = model(latent, backend=impl, speaker=vector)
    assert relative_l2(got, folded(latent, backend=impl)) < 1e-6
    assert relative_l2(got, model(latent, backend=impl)) > 1e-2
    silent = randomised(model.config).model
    silent.cond.weight.zero_()
    silent.cond.bias.zero_()
    assert torch.equal(silent(latent, backend=impl, speaker=1), model(latent, backend=impl))


def test_numbers_are_rows_of_the_table() -> None:
    voc = vocoder("vits")
    latents, table = torch.randn(2, 6, 11), voc.model.emb_g.weight
    by_number = voc(latents, speaker=[2, 1])
    for same in (table[[2, 1]], table[[2, 1]].double(), table[[2, 1]][:, :, None], table[[2, 1]].numpy()):
        assert torch.equal(voc(latents, speaker=same), by_number)
    for same in (torch.tensor([2, 1], dtype=torch.uint8), np.array([2, 1], dtype=np.uint16), (2, 1)):
        assert torch.equal(voc(latents, speaker=same), by_number)
    assert torch.equal(torch.stack(voc.each(list(latents), speaker=[2, 1])), by_number)


WRONG: dict[str, tuple[Any, type[FastvocError], str]] = {
    "number too high": (3, ArgumentError, r"speaker: expected 0\.\.2, got 3"),
    "number below 0": ([0, -1], ArgumentError, r"speaker: expected 0\.\.2, got -1"),
    "too many numbers": ([0, 1, 2], ShapeError, "speaker: expected one or 2, one per item, got 3"),
    "no numbers": (torch.zeros(0, dtype=torch.int64), ShapeError, "speaker: expected one number"),
    "no list": ([], ShapeError, "speaker: "),
    "too long a vector": (torch.zeros(6), ShapeError, r"speaker: expected a vector \[5\] or \[B, 5\], got \[6\]"),
    "turned vectors": (torch.zeros(5, 2), ShapeError, r"speaker: expected a vector \[5\] or \[B, 5\], got \[5, 2\]"),
    "too many vectors": (torch.zeros(3, 5), ShapeError, "speaker: expected one or 2, one per item, got 3"),
    "a signal": (torch.zeros(2, 5, 7), ShapeError, "speaker: expected a vector"),
    "a fraction": (0.5, ShapeError, r"speaker: expected a vector \[5\] or \[B, 5\], got \[\]"),
    "a name": ("anna", DtypeError, "speaker: expected whole numbers or a vector"),
    "nothing in a list": ([None, 1], DtypeError, "speaker: expected whole numbers or a vector"),
    "a truth": (True, DtypeError, "speaker: expected whole numbers or a vector of floats, got torch.bool"),
    "complex": (torch.zeros(5, dtype=torch.complex64), DtypeError, "speaker: expected whole numbers or a vector"),
    "not a number": (torch.full((5,), torch.nan), ArgumentError, "speaker: holds NaN or infinity"),
    "another device": (torch.zeros(5, device="meta"), DeviceError, "speaker: expected a tensor on cpu"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_speakers_are_named(name: str) -> None:
    speaker, error, message = WRONG[name]
    voc = vocoder("vits")
    with pytest.raises(error, match=message):
        voc(torch.zeros(2, 6, 9), speaker=speaker)
    with pytest.raises(error, match=message):
        voc.model(torch.zeros(2, 6, 9), speaker=speaker)
    with pytest.raises(error, match=message):
        voc.stream(speaker=speaker).push(torch.zeros(2, 6, 9))
    streams = fastvoc.Streams(voc)
    if "too many" not in name:
        with pytest.raises(error, match=message):
            streams.open("a", speaker=speaker)
        assert not len(streams)


def test_a_model_without_speakers_or_without_a_table_says_so() -> None:
    alone = vocoder("hifigan-1")
    for call in (alone.model, alone):
        with pytest.raises(ArgumentError, match=r"speaker: .*"):
            call(torch.zeros(1, 6, 9), speaker=0)
    with pytest.raises(ArgumentError, match="'speaker'"):
        alone.stream(speaker=0)
    config = HifiGanConfig.from_dict({**vocoder("vits").config.to_dict(), "num_speakers": 0})
    voc = randomised(config)
    assert len(voc(torch.zeros(6, 9), speaker=torch.zeros(5))) == 9 * voc.hop
    with pytest.raises(ArgumentError, match=r"speaker: no speakers are in this checkpoint, expected a vector \[5\]"):
        voc(torch.zeros(6, 9), speaker=0)


@QUICK
@given(st.data())
def test_streams_speak_as_calls_do(data: Any) -> None:
    voc = vocoder("vits", data.draw(st.sampled_from(["cpp", "torch"])))
    frames = data.draw(st.integers(1, 40))
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=4)))
    many = data.draw(st.booleans())
    speaker = data.draw(st.sampled_from([2, [1], torch.randn(5)] + ([[2, 0], torch.randn(2, 5)] if many else [])))
    latent = torch.stack([mel_of(voc, frames, i) for i in (1, 2)]) if many else mel_of(voc, frames)
    stream = voc.stream(speaker=speaker)
    pieces = [stream.push(latent[..., a:b]) for a, b in zip([0, *cuts], [*cuts, frames], strict=True)]
    got, whole = torch.cat([*pieces, stream.flush()], -1), voc(latent, speaker=speaker, exact=True)
    assert torch.equal(got, whole) if voc.backend == "cpp" else relative_l2(got, whole) < 1e-5


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
def test_a_pool_of_speakers_gives_each_its_own(backend: str) -> None:
    voc = vocoder("vits", backend)
    vector = torch.randn(5)
    speakers: dict[str, dict[str, Any]] = {
        "a": {"speaker": 2},
        "b": {},
        "c": {"speaker": vector},
        "d": {"speaker": 0},
        "e": {"speaker": 2, "exact": False},
    }
    latents = {name: mel_of(voc, 30, i) for i, name in enumerate(speakers)}
    streams = fastvoc.Streams(voc)
    for name, options in speakers.items():
        streams.open(name, **options)
    got: dict[str, list[Tensor]] = {name: [] for name in speakers}
    for first in range(0, 30, 6):
        names = [name for name in speakers if name != "d" or first]  # one begins later, beside those that went on
        for name, wav in streams.step({n: latents[n][:, first : first + 6] for n in names}).items():
            got[str(name)].append(wav)
    for name, options in speakers.items():
        wav = torch.cat([*got[name], streams.close(name)])
        alone = voc.stream(**options)
        begin = 6 if name == "d" else 0
        parts = [alone.push(latents[name][:, i : i + 6]) for i in range(begin, 30, 6)]
        assert relative_l2(wav, torch.cat([*parts, alone.flush()])) < 1e-5
        if backend == "cpp":
            inputs = {"exact": True, **options}
            whole = voc(latents[name][:, begin:], **inputs)
            assert torch.equal(wav, whole) if inputs["exact"] else relative_l2(wav, whole) < 1e-5


@pytest.mark.native
def test_a_state_goes_on_with_its_speaker() -> None:
    voc = vocoder("vits", "cpp")
    latent = mel_of(voc, 20)
    one, two = voc.stream(speaker=2), voc.stream(speaker=0)
    first = one.push(latent[:, :8])
    two.restore(one.state())
    assert torch.equal(torch.cat([first, two.flush(latent[:, 8:])]), voc(latent, speaker=2, exact=True))


@pytest.mark.native
def test_one_graph_serves_all_speakers() -> None:
    voc = vocoder("vits")
    graphed = Graphed(voc, capture=Rerun()).warmup([24], 2, speaker=0)
    latents = torch.randn(2, 6, 24)
    for speaker in ([1, 2], torch.randn(2, 5), 0):
        assert torch.equal(graphed(latents, speaker=speaker), voc(latents, speaker=speaker))
    assert (graphed.stats.graphs, graphed.stats.direct) == (1, 0)


def test_a_latent_is_no_mel() -> None:
    voc = vocoder("vits")
    with pytest.raises(ArgumentError, match=r"mel: the model takes a latent \[6, T\], which no mel front end makes"):
        voc.mel(torch.zeros(4000))
    with pytest.raises(ShapeError, match=r"mel: expected \[6, T\]"):
        voc(torch.zeros(7, 9))
    assert voc.examine(torch.randn(6, 80) * 1000) is None


def test_bad_configurations_name_the_field() -> None:
    base = VITS.to_dict()
    wrong = {"gin_channels": -1, "num_speakers": 0.5, "mel": fastvoc.load("hifigan").config.mel.to_dict()}
    for field, value in wrong.items():
        with pytest.raises(ArgumentError, match=rf"HifiGanConfig\.{field}: got "):
            HifiGanConfig.from_dict({**base, field: value})
    with pytest.raises(ArgumentError, match=r"HifiGanConfig\.gin_channels: got 0"):
        HifiGanConfig.from_dict({**base, "gin_channels": 0})


@pytest.mark.parametrize("config", [VITS, VITS_1], ids=["blocks-2", "blocks-1"])
@pytest.mark.parametrize("dialect", ["transformers", "vits", "piper", "coqui"])
def test_files_tell_the_whole_configuration(dialect: str, config: HifiGanConfig, tmp_path: Path) -> None:
    if dialect == "transformers":  # has one kind of block
        config = VITS_1
    voc = fastvoc.load(write_vits(tmp_path, dialect, config))
    assert voc.config == config
    for name, tensor in random_state(config).items():
        assert torch.equal(voc.model.state_dict()[name], tensor), name
    fastvoc.save(voc, tmp_path / "own.safetensors")
    again = fastvoc.load(tmp_path / "own.safetensors")
    latent = torch.randn(2, 6, 7)
    assert torch.equal(again(latent, speaker=[2, 0]), voc(latent, speaker=[2, 0]))


def test_a_file_of_one_speaker_has_none(tmp_path: Path) -> None:
    config = HifiGanConfig.from_dict({**VITS.to_dict(), "gin_channels": 0, "num_speakers": 0})
    assert fastvoc.load(write_vits(tmp_path, "vits", config)).config == config


def test_paths_in_a_training_checkpoint_are_nothing(tmp_path: Path) -> None:
    write_vits(tmp_path, "piper")
    file = tmp_path / "epoch=1-step=2.ckpt"
    theirs = fastvoc.load(tmp_path)
    tree = torch.load(file, weights_only=True)
    paths = {"dataset": [pathlib.PosixPath("data/dataset.jsonl")], "root": pathlib.PosixPath("/")}
    torch.save({**tree, "hyper_parameters": paths}, file)
    allowed = set(torch.serialization.get_safe_globals())
    ours = fastvoc.load(tmp_path)
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert ours.config == theirs.config
    torch.save({**tree, "hyper_parameters": {**paths, "kind": pathlib.PurePath.joinpath}}, file)
    with pytest.raises(LoadError, match="refused, it is not a plain weights file"):
        fastvoc.load(tmp_path)
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize(
    ("dialect", "edit", "message"),
    [
        ("transformers", {"model_type": "fastspeech"}, "model_type 'fastspeech', expected 'vits'"),
        ("coqui", {"model": "freevc"}, "model 'freevc', expected 'vits'"),
        ("vits", {"model": {}}, r"field 'model\.upsample_rates'"),
        ("vits", {"data": {}}, r"field 'data\.sampling_rate'"),
    ],
)
def test_other_models_are_refused(dialect: str, edit: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_vits(tmp_path, dialect, VITS_1)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    with pytest.raises(LoadError, match=message):
        fastvoc.load(tmp_path)


@pytest.mark.parametrize("change", ["missing", "shape", "more", "table"])
def test_tensors_that_do_not_fit_are_named(change: str, tmp_path: Path) -> None:
    state = random_state(VITS)
    match change:
        case "missing":
            del state["cond.bias"]
        case "shape":
            state["resblocks.4.convs.1.weight"] = torch.zeros(4, 4, 3)
        case "more":
            state["noise_convs.0.bias"] = torch.zeros(4)
        case _:
            state["emb_g.weight"] = torch.zeros(3, 5)
    name = {"missing": r"cond\.bias", "shape": r"resblocks\.4\.convs\.1\.weight", "more": r"noise_convs\.0\.bias"}
    write_vits(tmp_path, "vits", VITS, state)
    with pytest.raises(LoadError, match=name.get(change, r"emb_g\.weight")):
        fastvoc.load(tmp_path)


def test_the_speakers_stay_in_float32() -> None:
    model = HifiGan(VITS).eval().requires_grad_(False)
    model.load_state_dict(random_state(VITS))
    latent = torch.randn(2, 6, 30)
    exact = Vocoder(model, VITS)(latent, speaker=[2, 0])
    half = Vocoder(model.to(torch.bfloat16), VITS)
    assert (half.dtype, half.input_dtype) == (torch.bfloat16, torch.float32)
    assert {model.cond.weight.dtype, model.emb_g.weight.dtype} == {torch.float32}
    assert relative_l2(half(latent, speaker=[2, 0]), exact) < 2e-2


@pytest.mark.native
def test_an_int8_decoder_keeps_its_speakers(tmp_path: Path) -> None:
    config = replace(VITS, upsample_initial_channel=64)
    checkpoint = Checkpoint(config, random_state(config), "test")
    small = calibrate(checkpoint, [torch.randn(6, 2000)])
    save(small, tmp_path / "int8.safetensors")
    voc = fastvoc.load(tmp_path / "int8.safetensors")
    assert voc.dtype is torch.int8
    assert torch.equal(voc.model.cond.weight, checkpoint.state["cond.weight"])
    latent = torch.randn(2, 6, 20)
    wav = voc(latent, speaker=[2, 0])
    assert relative_l2(wav, fastvoc.load(tmp_path / "int8.safetensors", dtype="fp32")(latent, speaker=[2, 0])) < 5e-2
    stream = voc.stream(speaker=[2, 0])
    got = torch.cat([stream.push(latent[:, :, :7]), stream.flush(latent[:, :, 7:])], 1)
    assert torch.equal(got, voc(latent, speaker=[2, 0], exact=True))


@pytest.mark.native
def test_the_command_line_tells_of_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, own = write_vits(tmp_path / "voice", "coqui", VITS_1), tmp_path / "own.safetensors"
    for arguments in (["convert", folder, own], ["info", own], ["bench", own, "--seconds", "0.1", "--budget", "0"]):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert not ended.value.code
    told = " ".join("".join(capfd.readouterr()).split())
    for words in ("dialect coqui", "mel front end none, the input is a latent", "3 in the checkpoint, vectors of 4"):
        assert words in told
    assert told.count("none, the input is a latent") == 2
    assert "stream by chunks" in told
