"""Int8 models: calibration, the file, what load gives of it, and how near it stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import random_state
from safetensors.torch import load_file
from torch import Tensor

import fastvoc
from fastvoc import quantization
from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.checkpoints.safetensors_file import read_header, tensor_bytes, write
from fastvoc.cli import main
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.loading import loaded, save
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.univnet import UnivNetConfig
from fastvoc.nn.budget import within
from fastvoc.nn.quantized import RANGE, pack_weight, unpack_weight
from fastvoc.quantization import Calibration, calibrate
from fastvoc.sound.audio import mono, read_audio, resample
from helpers import ROOT, golden_folder, need

SMALL = HifiGanConfig(
    sample_rate=4000,  # at which the 30 seconds that calibration wants are few samples
    num_mels=6,
    upsample_rates=(8, 4, 4),
    upsample_kernel_sizes=(16, 8, 8),
    upsample_initial_channel=128,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 2), (1, 3)),
)
DEMO = ROOT / "fastvoc" / "assets" / "demo.flac"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def small() -> Checkpoint:
    state = random_state(SMALL)
    lively = {n: t * 6 / max(t[0].numel(), 100) ** 0.5 if t.dim() > 1 else t for n, t in state.items()}
    return Checkpoint(SMALL, lively, "test")


def mels(count: int = 4, frames: int = 240, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, frames, generator=generator) for _ in range(count)]


def snr(ours: Tensor, meant: Tensor) -> float:
    return float(10 * torch.log10(meant.square().sum() / (ours - meant).square().sum()))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 file of a small model."""
    file = tmp_path_factory.mktemp("int8") / "int8.safetensors"
    save(calibrate(small(), mels()), file)
    return file


def test_a_file_gives_an_int8_model(path: Path) -> None:
    voc, float32 = fastvoc.load(path), loaded(small())
    assert voc.dtype is torch.int8
    assert voc.input_dtype is torch.float32
    assert "torch.int8" in repr(voc)
    assert float32.dtype is torch.float32
    names = {row.layer for row in fastvoc.explain(voc) if row.int8}
    assert names == {"conv_pre", "ups.0", "mrf.0", "ups.1", "mrf.1", "ups.2", "mrf.2"}
    assert "mrf int8" in str(fastvoc.explain(voc))
    assert not any(row.int8 for row in fastvoc.explain(float32))
    mel = mels(1, 120, seed=9)[0]
    assert 25 < snr(voc(mel), float32(mel)) < 80


@pytest.mark.native
def test_every_layer_runs_natively(path: Path) -> None:
    assert {row.chosen for row in fastvoc.explain(fastvoc.load(path))} == {"cpp"}
    mel = mels(1, 70, seed=9)[0]
    ours = fastvoc.load(path, backend="cpp")(mel, exact=True)
    assert snr(ours, fastvoc.load(path, backend="torch")(mel)) > 60


def test_the_rounded_weights_load_in_any_dtype(path: Path) -> None:
    voc, float32 = fastvoc.load(path, dtype="fp32"), loaded(small())
    assert voc.dtype is torch.float32
    assert not any(row.int8 for row in fastvoc.explain(voc))
    assert fastvoc.load(path, dtype="bf16", backend="torch").dtype is torch.bfloat16
    assert fastvoc.load(path, dtype="int8").dtype is torch.int8
    mel = mels(1, 50)[0]
    assert 25 < snr(voc(mel), float32(mel)) < 80
    rounded = dict(voc.model.named_parameters())
    layers = voc.model.int8_layers()
    for name, tensor in small().state.items():
        module = name.rpartition(".")[0]
        kept = torch.equal(rounded[name], tensor)
        assert kept == (module not in layers or name.endswith("bias")), name


def test_equal_models_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    for source in (fastvoc.load(path), detect_and_load(path)):
        save(source, tmp_path / "again.safetensors")
        again, first = load_file(tmp_path / "again.safetensors"), load_file(path)
        assert again.keys() == first.keys()
        for name, tensor in first.items():
            assert again[name].dtype == tensor.dtype
            assert torch.equal(again[name], tensor) or name.endswith("weight_scale"), name
    assert sum(t.dtype == torch.int8 for t in load_file(path).values()) == len(loaded(small()).model.int8_layers())


def test_packed_weights_round_to_themselves() -> None:
    for axis, shape in ((0, (7, 5, 3)), (1, (5, 7, 4))):
        weight = torch.randn(shape) * torch.logspace(-20, 3, 7).reshape([-1 if i == axis else 1 for i in range(3)])
        weight.select(axis, 2).zero_()
        values, scale = pack_weight(weight, axis)
        again, _ = pack_weight(unpack_weight(values, scale, axis), axis)
        assert torch.equal(values, again)
        assert scale.shape == (7,)


def test_casts_and_missing_ranges_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DtypeError, match=r"cannot be cast to torch\.bfloat16"):
        fastvoc.load(path).to(torch.bfloat16)
    assert fastvoc.load(path).to("cpu").dtype is torch.int8
    save(small(), tmp_path / "float.safetensors")
    with pytest.raises(DtypeError, match="fastvoc convert --int8"):
        fastvoc.load(tmp_path / "float.safetensors", dtype="int8")
    with pytest.raises(DtypeError, match=r"int8 and float32, got torch\.float16"):
        save(fastvoc.load(path), tmp_path / "half.safetensors", dtype="fp16")
    state = {n: t for n, t in detect_and_load(path).state.items() if n != "resblocks.2.convs1.0.input_range"}
    with pytest.raises(ArgumentError, match=r"resblocks\.2\.convs1\.0 has no input_range"):
        save(replace(detect_and_load(path), state=state), tmp_path / "half.safetensors")
    with pytest.raises(ArgumentError, match="no layer has an input_range"):
        save(replace(small(), quantization="int8"), tmp_path / "half.safetensors")


def uneven() -> Checkpoint:
    """Weights as trained ones can be: a stage with tails and one of small gain, which hardly shows."""
    checkpoint = small()
    state = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
    for name, tensor in state.items():
        if name.startswith(("resblocks.2.", "resblocks.3.")) and name.endswith("weight"):
            tensor *= 0.1
    tails = torch.Generator().manual_seed(1)
    state["ups.1.weight"] *= torch.randn(64, 1, 1, generator=tails).abs().pow(3)
    return replace(checkpoint, state=state)


def test_what_loses_too_much_for_what_it_saves_stays_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_SECONDS", 2.0)
    model, inputs, counts = loaded(uneven()), mels(3, 40), []
    for least in (30.0, 46.0, 52.0):
        made = calibrate(uneven(), inputs, least)
        voc = loaded(made, dtype=torch.int8)
        names = {row.layer for row in fastvoc.explain(voc) if row.int8}
        assert min(snr(voc(mel), model(mel)) for mel in inputs) > least
        counts.append(len(names))
        save(made, tmp_path / "uneven.safetensors", dtype="fp32")
        kept = fastvoc.load(tmp_path / "uneven.safetensors")
        assert kept.notes == voc.notes
        assert {row.layer for row in fastvoc.explain(kept) if row.int8} == names
        assert torch.equal(kept(inputs[0]), voc(inputs[0]))
    assert counts[0] == 7 > counts[1] >= counts[2] > 0
    assert "float32, for what they lose, in" in str(fastvoc.explain(voc))
    again = calibrate(uneven(), inputs, 52.0)
    assert again.metadata == made.metadata
    assert again.state.keys() == made.state.keys()
    with pytest.raises(ArgumentError, match=r"no layer in int8 keeps it 97 dB from float32"):
        calibrate(uneven(), inputs, 97)
    with pytest.raises(ArgumentError, match="least: expected decibels between 0 and 100, got 0"):
        calibrate(uneven(), inputs, 0)


def test_an_input_that_is_not_heard_does_not_decide() -> None:
    """Bytes make nothing of it, which would be an error as large as itself."""
    state = {n: torch.zeros_like(t) if n.endswith("bias") else t for n, t in small().state.items()}
    silent = replace(small(), state=state)
    quiet = 1e-6 * mels(1)[0]
    made = calibrate(silent, [*mels(), quiet])
    assert snr(loaded(made, dtype=torch.int8)(quiet), loaded(silent)(quiet)) < 10
    assert any(name.endswith(RANGE) for name in made.state)


def test_stages_are_taken_by_error_for_what_they_save() -> None:
    """Errors of two clips that add up but for one pair of stages, which together lose more than apart."""
    alone = {"a": (1.0, 0.0), "b": (2.0, 2.0), "c": (0.5, 3.5), "d": (0.5, 0.5)}
    tried: list[tuple[str, ...]] = []

    def error(stages: Collection[str]) -> Tensor:
        tried.append(tuple(stages))
        total = torch.tensor([alone[name] for name in stages]).sum(0)
        return total * 4 if {"a", "d"} <= {*stages} else total

    saved = {"a": 10.0, "b": 20.0, "c": 1.0, "d": 4.0}
    taken, left = within(saved, error, torch.tensor([4.0, 3.0]))
    assert tried == [
        ("a",),
        ("b",),
        ("c",),
        ("d",),
        ("a", "b", "d"),
        ("a", "b"),
    ]  # c does not fit alone, nor d beside a
    assert (taken, left.tolist()) == (("a", "b"), [3.0, 2.0])
    assert within(saved, error, torch.tensor([99.0, 99.0]))[0] == ("a", "b", "c", "d")
    none, left = within(saved, error, torch.tensor([0.1, 0.1]))
    assert (none, left.tolist()) == ((), [0.0, 0.0])


@pytest.mark.native
def test_threads_batch_padding_and_chunks_do_not_change_a_bit(path: Path) -> None:
    voc = fastvoc.load(path, backend="cpp")
    mel = mels(1, 130, seed=5)[0]
    before = torch.get_num_threads()
    results = []
    for threads, batch, position in ((1, 1, 0), (2, 2, 1), (3, 4, 0)):
        torch.set_num_threads(threads)
        stacked = torch.full((batch, 6, 150), 1e9)
        stacked[:, :, :130] = torch.randn(batch, 6, 130)
        stacked[position, :, :130] = mel
        wav = voc(stacked, [130] * batch, check=False)[position]
        assert not wav[SMALL.samples(130) :].any()
        results.append(wav[: SMALL.samples(130)])
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])
    with voc.stream() as stream:
        parts = [stream.push(part) for part in mel.split(17, 1)]
        parts.append(stream.flush())
    assert torch.equal(torch.cat(parts), voc(mel, exact=True))


def test_the_embedded_voice_keeps_32_db(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    speech = golden_folder().parent / "speech"
    need("golden", None if (speech / "train").is_dir() else f"no speech in {speech}")
    for path in sorted((speech / "train").glob("*.flac"))[::15][:5]:
        (tmp_path / path.name).symlink_to(path)
    out = tmp_path / "voice.safetensors"
    assert run("convert", "hifigan", out, "--int8", "--calibrate", tmp_path) == 0
    assert "int8" in capfd.readouterr().err
    voc, whole = fastvoc.load(out), fastvoc.load("hifigan")
    assert voc.config == whole.config
    assert out.stat().st_size < 0.87 * 4 * sum(p.numel() for p in whole.model.parameters())
    for path in (DEMO, *sorted((speech / "valid").glob("*.flac"))[:3]):
        wav, rate = read_audio(path)
        mel = whole.mel(resample(mono(wav), rate, whole.sample_rate))
        assert snr(voc(mel), whole(mel)) > 32, path.name


def test_calibration_wants_real_inputs(path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"at least 30 seconds, got 0\.0"):
        calibrate(small(), [])
    with pytest.raises(ArgumentError, match=r"at least 30 seconds, got 0\.6"):
        calibrate(small(), mels(1, 20))
    with pytest.raises(ShapeError, match=r"mel: expected \[6"):
        calibrate(small(), [torch.randn(7, 300)])
    with pytest.raises(ArgumentError, match="NaN"):
        calibrate(small(), [torch.full((6, 300), torch.nan)])
    dead = replace(small(), state={n: torch.zeros_like(t) for n, t in small().state.items()})
    with pytest.raises(ArgumentError, match=r"ups\.0 saw nothing but zeros"):
        calibrate(dead, mels())
    with pytest.raises(ArgumentError, match="int8 already"):
        Calibration(detect_and_load(path))
    from fastvoc.models.families import build

    univnet = UnivNetConfig()
    with pytest.raises(ArgumentError, match="family 'univnet' has no int8 layers"):
        Calibration(Checkpoint(univnet, build(univnet).state_dict(), "test"))


def test_the_command_line_names_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save(small(), model)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "mel.npy").write_bytes(b"nothing")
    for arguments, named in (
        (("--int8",), "--calibrate"),
        (("--calibrate", DEMO), "--int8"),
        (("--least-db", "40"), "--least-db is for --int8"),
        (("--int8", "--calibrate", tmp_path / "empty"), "no audio and no mel files"),
        (("--int8", "--calibrate", tmp_path / "absent"), "no audio and no mel files"),
        (("--int8", "--calibrate", tmp_path / "bad"), "mel.npy"),
        (("--int8", "--calibrate", DEMO), "demo.flac"),
        (("--int8", "--calibrate", DEMO, "--dtype", "fp16"), "--dtype"),
    ):
        assert run("convert", model, out, *arguments) == 2, named
        assert named in "".join(capfd.readouterr().err.split("\n")), named
    assert not out.exists()


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> Path:
    """The file with other tensors and another description, its checksum left as it was."""
    entries, metadata, _ = read_header(path)
    tensors = {name: entry.read() for name, entry in entries.items()}
    description = json.loads(metadata["fastvoc"])
    change(tensors, description)
    write(target, *tensor_bytes(tensors), {"fastvoc": json.dumps(description)})
    return target


def halve(tensors: dict[str, Tensor], _: Any) -> None:
    ranges = [name for name in tensors if name.endswith("input_range")]
    for name in ranges[: len(ranges) // 2]:
        del tensors[name]


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], Any], str]] = {
    "half the ranges": (halve, r"tensor 'conv_pre\.input_range' of an int8 layer is missing"),
    "no scale": (lambda t, _: t.pop("ups.1.weight_scale"), r"'ups\.1\.weight_scale' of an int8 layer is missing"),
    "float weight": (lambda t, _: t.update({"ups.1.weight": t["ups.1.weight"].float()}), r"expected .* torch\.int8"),
    "reversed": (lambda t, _: t.update({"ups.1.input_range": torch.tensor([1.0, -1.0])}), "expected a finite range"),
    "not a number": (lambda t, _: t.update({"ups.1.input_range": torch.tensor([-1, torch.nan])}), "a finite range"),
    "three numbers": (lambda t, _: t.update({"ups.1.input_range": torch.zeros(3)}), r"expected \[2\] torch\.float32"),
    "range of a float layer": (lambda t, _: t.update({"conv_post.input_range": torch.ones(2)}), "has no place"),
    "infinite scale": (lambda t, _: t["ups.1.weight_scale"].fill_(torch.inf), "NaN or infinite"),
    "unknown kind": (lambda _, d: d.update(quantization="int3"), "quantization 'int3', expected 'int8'"),
    "a list": (lambda _, d: d.update(quantization=["int8"]), r"quantization \['int8'\], expected"),
    "not said": (lambda _, d: d.pop("quantization"), "input_range|expected a floating-point one"),
    "other numbers": (lambda t, _: t["ups.1.weight"].zero_(), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused(name: str, path: Path, tmp_path: Path) -> None:
    change, text = DAMAGE[name]
    with pytest.raises(LoadError, match=text):
        fastvoc.load(rewritten(path, tmp_path / "damaged.safetensors", change))
