"""Every dialect: the numbers of the published implementations, and full-size files from upstream's own name lists."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checkpoint_files import (
    DATA,
    SMALL,
    V1_SIZES,
    canonical_name,
    random_state,
    random_upstream,
    unfolded,
    write_jik,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan, HifiGanConfig
from fastvoc.sound.mel import HIFIGAN_22K, SPEECHT5_16K, TACOTRON2_22K
from helpers import assert_golden, golden

# Largest error measured against upstream is 2e-6; a wrong padding, slope or order of blocks is off by more than 1e-2.
TOLERANCE = 1e-5


def waveform(checkpoint: Checkpoint, mel: Tensor) -> Tensor:
    model = HifiGan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    with torch.inference_mode():
        return model(mel, backend="torch")


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.square().mean().sqrt())


JIK = ("hifigan_v1_small", "hifigan_v1_small_parametrized", "hifigan_v2", "hifigan_v3", "hifigan_odd_kernel")


@pytest.mark.golden
@pytest.mark.parametrize("name", JIK)
def test_jik876_golden(name: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    assert checkpoint.format == "jik876"
    assert_golden(waveform(checkpoint, case.inputs["mel"]), case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("name", ["hf_speecht5_hifigan", "hf_fastspeech2conformer_hifigan"])
def test_transformers_golden(name: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    assert checkpoint.format == "transformers"
    mel = case.inputs["spectrogram"].transpose(1, 2)
    assert_golden(waveform(checkpoint, mel).squeeze(1), case, "wav")


@pytest.mark.golden
def test_golden_configurations() -> None:
    assert detect_and_load(golden("hifigan_v2").dir).config == HIFIGAN_V2
    assert detect_and_load(golden("hifigan_v3").dir).config == HIFIGAN_V3
    assert detect_and_load(golden("hf_speecht5_hifigan").dir).config.mel == SPEECHT5_16K


@pytest.mark.golden
def test_folding_precision() -> None:
    folder = golden("hifigan_v1_small").dir
    state = detect_and_load(folder).state
    raw = torch.load(folder / "g_00000000", weights_only=True)["generator"]
    for name, weight in state.items():
        if name.endswith(".weight"):
            g, v = (raw[name.replace("weight", f"weight_{part}")].double() for part in "gv")
            exact = v * (g / v.square().sum((1, 2), keepdim=True).sqrt())
            assert (weight.double() - exact).abs().max() <= exact.abs().max() * 2**-24


@pytest.mark.parametrize(
    "name", ["parallel_wavegan", "parallel_wavegan_plain", "espnet", "coqui", "speechbrain", "nemo"]
)
def test_upstream_numbers(name: str) -> None:
    checkpoint = detect_and_load(DATA / name)
    assert checkpoint.format == name.removesuffix("_plain")
    tensors = load_file(DATA / name / "io.safetensors")
    assert error(waveform(checkpoint, tensors["in.mel"]), tensors["out.wav"]) <= TOLERANCE


def test_expected_shapes_are_the_model() -> None:
    configs = (
        HIFIGAN_V1,
        HIFIGAN_V3,
        SMALL,
        *(detect_and_load(DATA / n).config for n in ("coqui", "parallel_wavegan")),
    )
    for config in configs:
        model = HifiGan(config).state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in model.items()} == dict(config.tensors())


def write_full(dialect: str, tensors: dict[str, Tensor], folder: Path) -> Path:
    """A V1 file of the dialect, in its published layout."""
    pwg_sizes = {
        "upsample_scales": V1_SIZES["upsample_rates"],
        "upsample_kernel_sizes": V1_SIZES["upsample_kernel_sizes"],
        "channels": 512,
        "resblock_kernel_sizes": V1_SIZES["resblock_kernel_sizes"],
        "resblock_dilations": V1_SIZES["resblock_dilation_sizes"],
    }
    coqui_sizes = {"upsample_factors": [8, 8, 2, 2], "resblock_type": "1", **V1_SIZES}
    del coqui_sizes["upsample_rates"]
    if dialect == "parallel_wavegan":
        torch.save({"model": {"generator": tensors}}, folder / "checkpoint-10steps.pkl")
        config = {"sampling_rate": 22050, "generator_type": "HiFiGANGenerator", "generator_params": pwg_sizes}
        (folder / "config.yml").write_text(yaml.safe_dump(config))
    elif dialect == "espnet":
        torch.save({f"tts.generator.vocoder.{k}": v for k, v in tensors.items()}, folder / "train.pth")
        (folder / "config.yaml").write_text(yaml.safe_dump({"tts_conf": {"vocoder_params": pwg_sizes}}))
    elif dialect == "coqui":
        torch.save({"model": tensors}, folder / "model_file.pth")
        audio = {"sample_rate": 22050, "num_mels": 80}
        config = {"generator_model": "hifigan_generator", "generator_model_params": coqui_sizes, "audio": audio}
        (folder / "config.json").write_text(json.dumps(config))
    elif dialect == "speechbrain":
        torch.save(tensors, folder / "generator.ckpt")
        (folder / "hyperparams.yaml").write_text(yaml.safe_dump({"in_channels": 80, **coqui_sizes}))
    else:
        config = {"generator": {"resblock": 1, **V1_SIZES}, "preprocessor": {"sample_rate": 22050}}
        write_nemo(folder / "model.nemo", {f"generator.{k}": v for k, v in tensors.items()}, config)
    return folder


def write_nemo(path: Path, tensors: dict[str, Tensor], config: dict, mode: str = "w:") -> None:
    weights = io.BytesIO()
    torch.save(tensors, weights)
    with tarfile.open(path, mode) as archive:
        for name, data in (
            ("model_config.yaml", yaml.safe_dump(config).encode()),
            ("model_weights.ckpt", weights.getvalue()),
        ):
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("dialect", ["parallel_wavegan", "espnet", "coqui", "speechbrain", "nemo"])
def test_upstream_names(dialect: str, tmp_path: Path) -> None:
    tensors = random_upstream(f"{dialect}_v1")
    checkpoint = detect_and_load(write_full(dialect, tensors, tmp_path))
    sizes = ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes", "resblock_dilation_sizes")
    assert all(getattr(checkpoint.config, name) == getattr(HIFIGAN_V1, name) for name in sizes)
    assert (checkpoint.config.sample_rate, checkpoint.config.upsample_initial_channel) == (22050, 512)
    assert {n: tuple(t.shape) for n, t in checkpoint.state.items()} == dict(HIFIGAN_V1.tensors())
    used = set()
    for name, tensor in tensors.items():
        ours = canonical_name(name)
        if ours.endswith(".bias"):
            assert torch.equal(checkpoint.state[ours], tensor)
        elif ours.endswith(("weight_v", "original1")):
            module = ours.removesuffix("weight_v").removesuffix("parametrizations.weight.original1")
            weight, used = checkpoint.state[f"{module}weight"], used | {f"{module}weight"}
            # Folding keeps the direction of each row.
            cosine = torch.nn.functional.cosine_similarity(weight.flatten(1), tensor.flatten(1)).abs()
            torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-5, atol=0)
        else:
            module = ours.removesuffix("weight_g").removesuffix("parametrizations.weight.original0")
            norms = checkpoint.state[f"{module}weight"].flatten(1).norm(dim=1)
            torch.testing.assert_close(norms, tensor.flatten().abs(), rtol=1e-5, atol=1e-7)
    assert used == {name for name in checkpoint.state if name.endswith(".weight")}


def legacy_save(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def deflated_save(value: object, path: Path) -> None:
    plain = io.BytesIO()
    torch.save(value, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))


@pytest.mark.parametrize("save", [torch.save, legacy_save, deflated_save], ids=["zip", "legacy", "deflated"])
@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped", "bare"])
@pytest.mark.parametrize("form", ["weight_g", "parametrizations", "folded"])
def test_jik876_forms(form: str, wrap: bool, save: object, tmp_path: Path) -> None:
    state = random_state(SMALL)
    write_jik(tmp_path, state if form == "folded" else unfolded(state, form), wrap=wrap, save=save)
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.config.resblock_dilation_sizes == SMALL.resblock_dilation_sizes
    for name, tensor in state.items():
        torch.testing.assert_close(checkpoint.state[name], tensor, rtol=3e-7, atol=1e-9)


def test_fastspeech2_zip(tmp_path: Path) -> None:
    state = random_state(SMALL)
    inner = write_jik(tmp_path, unfolded(state))
    path = tmp_path / "generator_LJSpeech.pth.tar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "generator_LJSpeech.pth.tar")
        archive.writestr("__MACOSX/._generator_LJSpeech.pth.tar", b"\0" * 120)
    inner.unlink()
    for given in (path, tmp_path):
        checkpoint = detect_and_load(given)
        assert checkpoint.format == "jik876"
        torch.testing.assert_close(checkpoint.state["ups.0.weight"], state["ups.0.weight"])


def test_last_checkpoint_of_a_folder(tmp_path: Path) -> None:
    for step, seed in ((5000, 1), (2500000, 2), (990000, 3)):
        write_jik(tmp_path, random_state(SMALL, seed)).rename(tmp_path / f"g_{step:08}")
    (tmp_path / "do_02500000").write_bytes(b"discriminators")
    state = detect_and_load(tmp_path).state
    assert torch.equal(state["conv_pre.bias"], random_state(SMALL, 2)["conv_pre.bias"])


HF_SIZES = {
    "model_in_dim": 6,
    "upsample_initial_channel": 8,
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 2], [1, 3]],
    "leaky_relu_slope": 0.25,
}


@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "with acoustic model"])
def test_transformers_variants(nested: bool, normalize: bool, binary: bool, tmp_path: Path) -> None:
    state = random_state(SMALL)
    buffers = {"mean": torch.randn(6), "scale": torch.rand(6) + 1}
    names = {k.replace("ups.", "upsampler."): v for k, v in {**buffers, **state}.items()}
    config = {"model_type": "fastspeech2_conformer_hifigan", **HF_SIZES, "normalize_before": normalize}
    if nested:
        names = {"model.encoder.weight": torch.zeros(3), **{f"vocoder.{k}": v for k, v in names.items()}}
        config = {"model_type": "fastspeech2_conformer_with_hifigan", "vocoder_config": config}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(names, tmp_path / "pytorch_model.bin") if binary else save_file(names, tmp_path / "model.safetensors")
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.config.normalize_before is normalize
    assert (checkpoint.config.leaky_relu_slope, checkpoint.config.final_leaky_relu_slope) == (0.25, 0.01)
    expected = {**buffers, **state} if normalize else state
    assert checkpoint.state.keys() == expected.keys()
    assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(("architecture", "rate"), [("SpeechT5HifiGan", 16000), ("FastSpeech2ConformerHifiGan", 22050)])
def test_transformers_before_version_5(architecture: str, rate: int, tmp_path: Path) -> None:
    names = {k.replace("ups.", "upsampler."): v for k, v in random_state(SMALL).items()}
    torch.save({"mean": torch.zeros(6), "scale": torch.ones(6), **names}, tmp_path / "pytorch_model.bin")
    config = {"model_type": "hifigan", "architectures": [architecture], **HF_SIZES}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.config.sample_rate == rate
    assert checkpoint.config.normalize_before
    for architectures in ([], ["VitsModel"], None, "SpeechT5HifiGan"):
        (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
        with pytest.raises(LoadError, match=r"architectures|model_type 'hifigan'"):
            detect_and_load(tmp_path)


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_nemo_flat_blocks(mode: str, tmp_path: Path) -> None:
    state = random_state(SMALL)
    generator = {"resblock": 1, "initial_input_size": 6, "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4]}
    generator |= {
        k: HF_SIZES[k] for k in ("upsample_initial_channel", "resblock_kernel_sizes", "resblock_dilation_sizes")
    }
    config = {"generator": generator, "preprocessor": {"sample_rate": 44100}}
    write_nemo(tmp_path / "m.nemo", {f"generator.{k}": v for k, v in unfolded(state).items()}, config, mode)
    checkpoint = detect_and_load(tmp_path)
    assert (checkpoint.format, checkpoint.config.sample_rate) == ("nemo", 44100)
    torch.testing.assert_close(checkpoint.state["resblocks.3.convs2.1.weight"], state["resblocks.3.convs2.1.weight"])


def test_coqui_without_gan_wrapper(tmp_path: Path) -> None:
    shutil.copy(DATA / "coqui" / "config.json", tmp_path)
    model = torch.load(DATA / "coqui" / "best_model.pth", weights_only=True)["model"]
    plain = {k.removeprefix("model_g."): v for k, v in model.items() if k.startswith("model_g.")}
    torch.save({"model": plain}, tmp_path / "model_file.pth")
    ours, theirs = detect_and_load(tmp_path), detect_and_load(DATA / "coqui")
    assert ours.config == theirs.config
    assert not ours.config.post_bias
    assert all(torch.equal(ours.state[name], tensor) for name, tensor in theirs.state.items())


def test_parallel_wavegan_needs_statistics_to_normalise(tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "parallel_wavegan", tmp_path / "x")
    assert detect_and_load(folder).config.normalize_before
    (folder / "stats.h5").unlink()
    bare = detect_and_load(folder).config
    assert not bare.normalize_before
    assert bare.mel is None


@pytest.mark.parametrize("offset", [0x50, 0x58, 0x2A8 + 24, 0x88 + 32, 0x430 + 16])
@pytest.mark.parametrize("address", [0, 1 << 12, (1 << 63) - 1, (1 << 64) - 1])
def test_statistics_with_wild_addresses(offset: int, address: int, tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "parallel_wavegan", tmp_path / "x")
    data = bytearray((folder / "stats.h5").read_bytes())
    data[offset : offset + 8] = address.to_bytes(8, "little")
    (folder / "stats.h5").write_bytes(data)
    with pytest.raises(LoadError, match=r"stats\.h5"):
        detect_and_load(folder)


def test_statistics_of_another_size(tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "parallel_wavegan_plain", tmp_path / "x")
    for array in (np.ones((2, 11), "<f4"), np.ones((3, 12), "<f4"), np.ones(12), np.ones((2, 12), "i4")):
        np.save(folder / "stats.npy", array)
        with pytest.raises(LoadError):
            detect_and_load(folder)
    np.save(folder / "stats.npy", np.array([[0.0] * 12, [0.0] * 12]))
    with pytest.raises(LoadError, match="scale is zero"):
        detect_and_load(folder)
    np.save(folder / "stats.npy", np.array([[float("nan")] * 12, [1.0] * 12]))
    with pytest.raises(LoadError, match="'mean' holds NaN"):
        detect_and_load(folder)


def test_front_ends() -> None:
    assert HIFIGAN_V1.mel == HIFIGAN_22K
    pwg = detect_and_load(DATA / "parallel_wavegan").config
    assert pwg.mel is not None
    assert (pwg.mel.log, pwg.mel.floor, pwg.mel.pad, pwg.mel.f_min, pwg.mel.f_max) == (
        "log10",
        1e-10,
        "center",
        80,
        7600,
    )
    assert (pwg.mel.win_length, pwg.mel.hop_length) == (64, 10)
    coqui = detect_and_load(DATA / "coqui").config.mel
    assert coqui is not None
    assert (coqui.log, coqui.floor, coqui.pad) == ("ln", 1e-8, "center")
    for unknown in ("espnet", "nemo"):
        assert detect_and_load(DATA / unknown).config.mel is None


def test_front_end_of_another_frame_rate_is_left_out(tmp_path: Path) -> None:
    write_jik(tmp_path, random_state(SMALL), hop_size=16)
    assert detect_and_load(tmp_path).config.mel is None
    write_jik(tmp_path, random_state(SMALL))
    assert detect_and_load(tmp_path).config.mel is not None


def test_speechbrain_recipe(tmp_path: Path) -> None:
    config = detect_and_load(write_full("speechbrain", random_upstream("speechbrain_v1"), tmp_path)).config
    assert config.pad_mode == "reflect"
    assert config.mel == TACOTRON2_22K


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"out_channels": 4}, "multi-band"),
        ({"use_causal_conv": True}, "causal"),
        ({"nonlinear_activation": "ReLU"}, "nonlinear_activation"),
    ],
)
def test_unsupported_parallel_wavegan(change: dict, named: str, tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "parallel_wavegan", tmp_path / "x")
    config = yaml.safe_load((folder / "config.yml").read_text())
    config["generator_params"].update(change)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with pytest.raises(LoadError, match=named):
        detect_and_load(folder)


def test_config_roundtrip_through_our_file(tmp_path: Path) -> None:
    from fastvoc.checkpoints import save

    for name in ("parallel_wavegan", "speechbrain", "coqui"):
        original = detect_and_load(DATA / name)
        save(original, tmp_path / "x.safetensors")
        copy = detect_and_load(tmp_path / "x.safetensors")
        assert copy.config == original.config
        assert isinstance(copy.config, HifiGanConfig)
        assert all(torch.equal(copy.state[key], tensor) for key, tensor in original.state.items())
        assert copy.metadata["format"] == original.format
