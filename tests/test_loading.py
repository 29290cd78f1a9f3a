"""`fastvoc.load` and `fastvoc.save`: from any file to a ready vocoder and back, without leaks and side effects."""

from __future__ import annotations

import gc
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import DATA, SMALL, random_state, write_jik
from codec_models import MONO, lively
from safetensors import safe_open
from safetensors.torch import load_file

import fastvoc
from fastvoc import loading
from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.codec import Codec
from fastvoc.compat.pretrained import folder_of
from fastvoc.errors import BackendError, DeviceError, DtypeError, LoadError
from fastvoc.hub import download as hub
from fastvoc.models.hifigan import HifiGan
from helpers import assert_golden, golden

GOLDEN = ("hifigan_v1_small", "hifigan_v1_small_parametrized", "hifigan_v2", "hifigan_v3", "hifigan_odd_kernel")


@pytest.mark.golden
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
@pytest.mark.parametrize("name", [*GOLDEN, "hf_speecht5_hifigan", "hf_fastspeech2conformer_hifigan"])
def test_golden_through_load(name: str, backend: str) -> None:
    case = golden(name)
    vocoder = fastvoc.load(case.dir, backend=backend)
    mel = case.inputs["mel"] if "mel" in case.inputs else case.inputs["spectrogram"].transpose(1, 2)
    assert_golden(vocoder(mel, check=False).reshape(case.outputs["wav"].shape), case, "wav")
    assert vocoder.sample_rate == case.case["sample_rate"]


@pytest.mark.parametrize("name", ["parallel_wavegan", "espnet", "coqui", "speechbrain", "nemo"])
def test_upstream_through_load(name: str) -> None:
    tensors = load_file(DATA / name / "io.safetensors")
    ours, theirs = fastvoc.load(DATA / name)(tensors["in.mel"], check=False), tensors["out.wav"][:, 0]
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.square().mean().sqrt()


def test_loading_has_no_side_effects(tmp_path: Path) -> None:
    path = write_jik(tmp_path, random_state(SMALL))
    before, random = sorted(tmp_path.rglob("*")), torch.get_rng_state()
    vocoder = fastvoc.load(path)
    assert torch.equal(torch.get_rng_state(), random)
    assert sorted(tmp_path.rglob("*")) == before
    assert not any(parameter.requires_grad for parameter in vocoder.model.parameters())
    assert not vocoder.model.training


def test_every_tensor_is_the_files(tmp_path: Path) -> None:
    state = random_state(SMALL)
    write_jik(tmp_path, state)
    loaded = fastvoc.load(str(tmp_path)).model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", ["fp16", "bf16", torch.float16, torch.bfloat16])
@pytest.mark.parametrize("taps", [5, 7, 11])
def test_dtype(taps: int, dtype: str | torch.dtype, tmp_path: Path) -> None:
    config = replace(SMALL, resblock_kernel_sizes=(3, taps))
    write_jik(tmp_path, random_state(config), config)
    vocoder = fastvoc.load(tmp_path, dtype=dtype, backend="torch")
    wanted = loading.parse_dtype(dtype)
    assert vocoder.dtype == wanted
    blocks = range(len(vocoder.config.resblock_kernel_sizes) if taps > 7 else 0)
    kept = ("conv_pre.", "ups.0.", *(f"resblocks.{i}." for i in blocks))  # the front of the generator
    dtypes = {name: p.dtype for name, p in vocoder.model.named_parameters()}
    assert vocoder.input_dtype == torch.float32
    for name, found in dtypes.items():
        assert found == (torch.float32 if name.startswith(kept) else wanted), name
    wav = vocoder(torch.randn(6, 20), check=False)
    assert wav.dtype == torch.float32
    reference = fastvoc.load(tmp_path)(torch.zeros(6, 20), check=False)
    assert (vocoder(torch.zeros(6, 20), check=False) - reference).abs().max() < 0.05


def test_wrong_arguments(tmp_path: Path) -> None:
    write_jik(tmp_path, random_state(SMALL))
    with pytest.raises(DtypeError, match="int8"):
        fastvoc.load(tmp_path, dtype="int8")
    with pytest.raises(DtypeError, match="float64"):
        fastvoc.load(tmp_path, dtype=torch.float64)
    with pytest.raises(DeviceError, match="device"):
        fastvoc.load(tmp_path, device="toaster")
    with pytest.raises(BackendError, match="toaster"):
        fastvoc.load(tmp_path, backend="toaster")
    with pytest.raises(DtypeError, match="name"):
        fastvoc.load(5)  # type: ignore[arg-type]
    with pytest.raises(LoadError, match=r"nope.*known: hifigan"):
        fastvoc.load("nope")
    with pytest.raises(LoadError, match="no such file"):
        fastvoc.load(tmp_path / "nope")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_absent_device(tmp_path: Path) -> None:
    write_jik(tmp_path, random_state(SMALL))
    with pytest.raises(DeviceError, match="CUDA"):
        fastvoc.load(tmp_path, device="cuda")


def test_save_and_load(tmp_path: Path) -> None:
    write_jik(tmp_path / "a", random_state(SMALL))
    vocoder = fastvoc.load(tmp_path / "a")
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    fastvoc.save(vocoder, first)
    fastvoc.save(fastvoc.load(first), second)
    assert first.read_bytes() == second.read_bytes()
    mel = torch.randn(6, 30)
    assert torch.equal(fastvoc.load(first)(mel, check=False), vocoder(mel, check=False))
    with safe_open(first, "pt") as file:
        assert json.loads(file.metadata()["fastvoc"])["model"] == "hifigan"
    fastvoc.save(vocoder, first, dtype="fp16")
    assert first.stat().st_size < 0.75 * second.stat().st_size
    assert fastvoc.load(first).dtype == torch.float32


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(SMALL, random_state(SMALL), "test")
    path = tmp_path / "a.safetensors"
    fastvoc.save(checkpoint, path)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        fastvoc.save(Checkpoint(SMALL, random_state(SMALL, 1), "test"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    fastvoc.save(Checkpoint(SMALL, random_state(SMALL), "test"), path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(LoadError, match="SHA-256"):
        fastvoc.load(path)


def test_embedded_voice() -> None:
    vocoder = fastvoc.load("hifigan")
    assert vocoder.mel_config is not None
    mel = vocoder.mel(torch.randn(8192) * 0.1)
    wav = vocoder(mel)
    assert wav.shape == (mel.shape[1] * vocoder.hop,)
    assert wav.isfinite().all()
    path = loading.EMBEDDED["hifigan"]
    assert path.stat().st_size < 4_000_000
    with safe_open(path, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.offset_keys()} == {"F16"}


def test_names_come_before_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "voice.safetensors"
    fastvoc.save(Checkpoint(SMALL, random_state(SMALL), "test", {"licence": "CC0-1.0"}), path)
    monkeypatch.setattr(loading, "EMBEDDED", {"hifigan": path})
    monkeypatch.chdir(tmp_path)
    write_jik(tmp_path / "hifigan", random_state(SMALL, 1))
    write_jik(tmp_path / "microsoft" / "speecht5_hifigan", random_state(SMALL, 2))
    expected = {"hifigan": 0, "./hifigan": 1, "microsoft/speecht5_hifigan": 2}  # a folder at hand is no hub id
    for name, seed in expected.items():
        state = fastvoc.load(name).model.state_dict()
        assert torch.equal(state["conv_pre.weight"], random_state(SMALL, seed)["conv_pre.weight"])


def test_list_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "voice.safetensors"
    fastvoc.save(Checkpoint(SMALL, random_state(SMALL), "test", {"licence": "CC0-1.0"}), path)
    monkeypatch.setattr(loading, "EMBEDDED", {"hifigan": path})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    models = {model.name: model for model in fastvoc.list_models()}
    voice = models["hifigan"]
    assert (voice.family, voice.sample_rate, voice.where, voice.licence) == ("hifigan", 22050, "embedded", "CC0-1.0")
    speecht5 = models["microsoft/speecht5_hifigan"]
    assert (speecht5.sample_rate, speecht5.where, speecht5.cached) == (16000, "hub", False)
    assert {model.repo for model in hub.KNOWN} < models.keys()
    snapshot = tmp_path / "hub" / "models--microsoft--speecht5_hifigan" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert {m.name: m.cached for m in fastvoc.list_models()}["microsoft/speecht5_hifigan"]


def resident() -> int:
    line = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmRSS"))
    return int(line.split()[1]) << 10


# Few layers, but 2 MB of weights, and as much packed: leaked copies would show.
MEDIUM = replace(SMALL, upsample_initial_channel=320, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),))


def grown(work: Callable[[], object], times: int) -> float:
    """Resident memory after `times` calls, relative to that after 10."""
    before = 0
    gc.freeze()  # what is there already need not be looked at 200 times
    for count in range(times):
        work()
        gc.collect()  # modules refer to themselves through their prepared ops
        if count == 9:
            before = resident()
    gc.unfreeze()
    return resident() / before


def test_two_hundred_loads_leak_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    fastvoc.save(Checkpoint(MEDIUM, random_state(MEDIUM), "test"), path)
    assert grown(lambda: fastvoc.load(path), 200) <= 1.05


def test_refused_files_leak_nothing(tmp_path: Path) -> None:
    path = write_jik(tmp_path, random_state(MEDIUM), MEDIUM)
    write_jik(tmp_path / "other", random_state(SMALL), replace(MEDIUM, resblock_kernel_sizes=(5,)))
    shutil.copy(tmp_path / "other" / "config.json", tmp_path)

    def refused() -> None:
        with pytest.raises(LoadError, match="resblocks"):
            detect_and_load(path)

    assert grown(refused, 60) <= 1.05


def test_threads_load_at_once(tmp_path: Path) -> None:
    write_jik(tmp_path, random_state(SMALL))
    mel, results = torch.randn(6, 30), []

    def work() -> None:
        results.append(fastvoc.load(tmp_path)(mel, check=False))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(torch.equal(result, results[0]) for result in results)


def test_parameters_of_new_models_stay_random() -> None:
    # Loading skips the initialisation of parameters only while it runs.
    fastvoc.load(DATA / "coqui")
    weight = HifiGan(SMALL).conv_pre.weight
    assert weight.std() > 0


def test_our_file_beside_others(tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "coqui", tmp_path / "x")
    fastvoc.save(detect_and_load(folder), folder / "model.safetensors")
    assert detect_and_load(folder).format == "fastvoc"


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_a_blank_name_is_no_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the current folder holds a model."""
    fastvoc.save(fastvoc.load("hifigan"), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for take in (fastvoc.load, detect_and_load, fastvoc.load_language_model, folder_of):
        with pytest.raises(LoadError, match="name: expected a name or a path, got"):
            take(name)
    assert fastvoc.load(".").sample_rate == 22050


def test_load_vocoder_and_load_codec(tmp_path: Path) -> None:
    assert isinstance(fastvoc.load_vocoder("hifigan"), fastvoc.Vocoder)
    codec = tmp_path / "codec.safetensors"
    fastvoc.save(Codec(lively(MONO), MONO), codec)
    assert isinstance(fastvoc.load_codec(codec), fastvoc.Codec)
    with pytest.raises(LoadError, match=r"a codec \(encodec\), expected a vocoder; see fastvoc\.load_codec"):
        fastvoc.load_vocoder(codec)
    with pytest.raises(LoadError, match=r"hifigan: a vocoder \(hifigan\), expected a codec; see fastvoc\.load_vocoder"):
        fastvoc.load_codec("hifigan", backend="no such backend")
