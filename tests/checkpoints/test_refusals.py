"""Weights that do not fit their configuration: the first such tensor is named, and nothing is loaded in part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import DATA, SMALL, random_state, unfolded, write_jik
from safetensors.torch import save_file
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGanConfig

HIFIGAN_24K = replace(
    HIFIGAN_V2, sample_rate=24000, upsample_rates=(5, 5, 4, 3), upsample_kernel_sizes=(11, 11, 8, 7), mel=None
)


def refused(path: Path, *named: str) -> str:
    with pytest.raises(LoadError) as caught:
        detect_and_load(path)
    message = str(caught.value)
    for text in named:
        assert text in message, message
    return message


DEEPER = replace(SMALL, resblock_dilation_sizes=((1, 2, 3), (1, 3, 5)))


@pytest.mark.parametrize(
    ("weights", "config", "first", "problem"),
    [
        (HIFIGAN_V2, HIFIGAN_V1, "conv_pre.weight", "[128, 80, 7], the configuration needs [512, 80, 7]"),
        (HIFIGAN_V2, HIFIGAN_24K, "ups.0.weight", "[128, 64, 16], the configuration needs [128, 64, 11]"),
        (HIFIGAN_24K, HIFIGAN_V2, "ups.0.weight", "[128, 64, 11], the configuration needs [128, 64, 16]"),
        (HIFIGAN_V2, replace(HIFIGAN_V3, upsample_initial_channel=128), "ups.2.weight", "[32, 16, 4], the"),
        (HIFIGAN_V3, HIFIGAN_V2, "conv_pre.weight", "[256, 80, 7], the configuration needs [128, 80, 7]"),
        (SMALL, DEEPER, "resblocks.0.convs1.2.weight", "[4, 4, 3] is missing"),
        (DEEPER, SMALL, "resblocks.0.convs1.2.weight", "no place in the configured model"),
        (SMALL, replace(SMALL, resblock="2"), "resblocks.0.convs.0.weight", "[4, 4, 3] is missing"),
        (replace(SMALL, num_mels=7), SMALL, "conv_pre.weight", "[8, 7, 7], the configuration needs [8, 6, 7]"),
    ],
    ids=["v2-v1", "22k-24k", "24k-22k", "v2-v3", "v3-v2", "fewer blocks", "more blocks", "other blocks", "bands"],
)
@pytest.mark.parametrize("form", ["folded", "weight_g", "parametrizations"])
def test_weights_of_another_model(
    weights: HifiGanConfig, config: HifiGanConfig, first: str, problem: str, form: str, tmp_path: Path
) -> None:
    state = random_state(weights)
    path = write_jik(tmp_path, state if form == "folded" else unfolded(state, form), config)
    message = refused(path, str(path), first.removesuffix("weight"))
    # In the unfolded forms the magnitude comes first, whose shape is another.
    assert form != "folded" or problem in message, message


def edit(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    edited = {**state, **{k: v for k, v in changes.items() if v is not None}}
    return {k: v for k, v in edited.items() if not (k in changes and changes[k] is None)}


EDITS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
    "missing": (lambda s: {"conv_pre.bias": None}, "'conv_pre.bias' [8] is missing"),
    "extra": (lambda s: {"cond_layer.weight": torch.zeros(2, 2, 1)}, "'generator.cond_layer.weight'"),
    "extra block": (lambda s: {"resblocks.4.convs1.0.weight": torch.zeros(2, 2, 3)}, "resblocks.4.convs1.0.weight"),
    "transposed": (lambda s: {"ups.0.weight": s["ups.0.weight"].transpose(0, 1)}, "'generator.ups.0.weight'"),
    "integers": (lambda s: {"conv_pre.bias": torch.zeros(8, dtype=torch.int32)}, "dtype torch.int32"),
    "complex": (lambda s: {"conv_pre.bias": torch.zeros(8, dtype=torch.complex64)}, "dtype torch.complex64"),
    "nan": (lambda s: {"ups.1.bias": torch.full((2,), float("nan"))}, "'ups.1.bias' holds NaN"),
    "infinite": (lambda s: {"ups.1.bias": torch.tensor([0.0, float("inf")])}, "'ups.1.bias' holds NaN or infinite"),
    "half of weight norm": (lambda s: {"ups.0.weight": None, "ups.0.weight_v": s["ups.0.weight"]}, "ups.0.weight_v"),
    "other half": (lambda s: {"ups.0.weight": None, "ups.0.weight_g": torch.ones(8, 1, 1)}, "ups.0.weight_g"),
    "twice": (lambda s: {"ups.0.weight_v": s["ups.0.weight"]}, "a second value for 'ups.0.weight'"),
    "spectral norm": (
        lambda s: {"ups.0.weight": None, "ups.0.weight_g": torch.ones(8, 1, 1), "ups.0.weight_v": torch.zeros(15)},
        "'generator.ups.0.weight_v' has shape [15]",
    ),
    "zero direction": (
        lambda s: {"ups.0.weight": None, "ups.0.weight_g": torch.ones(8, 1, 1), "ups.0.weight_v": torch.zeros(8, 4, 8)},
        "'ups.0.weight' holds NaN",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_edited_weights(name: str, tmp_path: Path) -> None:
    changes, named = EDITS[name]
    state = random_state(SMALL)
    path = write_jik(tmp_path, edit(state, **changes(state)))
    refused(path, str(path), named)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("upsample_rates", "8,8", ""),
        ("upsample_rates", [4, -2], ""),
        ("upsample_rates", [4, 2.5], ""),
        ("upsample_rates", [4, True], ""),
        ("upsample_rates", [], ""),
        ("upsample_rates", None, ""),
        ("upsample_rates", [1 << 40, 2], ""),
        ("upsample_rates", [0, 2], ""),
        ("upsample_kernel_sizes", [8], ""),
        ("upsample_initial_channel", 1 << 62, ""),
        ("upsample_initial_channel", 1, ""),
        ("resblock_kernel_sizes", [[3], [5]], ""),
        ("resblock_kernel_sizes", [4, 5], ""),
        ("resblock_dilation_sizes", [1, 2], ""),
        ("resblock_dilation_sizes", [[1, 2]], ""),
        ("sampling_rate", "22050", ""),
        ("sampling_rate", 0, "sample_rate"),
        ("fmin", {}, ""),
        pytest.param("fmin", 10**400, "", id="fmin-huge"),
        ("fmax", 10**6, "f_max"),
        ("n_fft", 0, ""),
        ("num_mels", {"a": 1}, ""),
    ],
)
def test_bad_configuration(field: str, value: object, named: str, tmp_path: Path) -> None:
    write_jik(tmp_path, random_state(SMALL), **{field: value})
    refused(tmp_path, str(tmp_path / "config.json"), named or field)


def test_missing_configuration(tmp_path: Path) -> None:
    path = write_jik(tmp_path, random_state(SMALL))
    (tmp_path / "config.json").unlink()
    refused(path, "config.json is missing beside it")


def test_transformers_of_another_type(tmp_path: Path) -> None:
    names = {k.replace("ups.", "upsampler."): v for k, v in random_state(SMALL).items()}
    save_file(names, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vits"}))
    refused(tmp_path, "model_type 'vits'", "speecht5_hifigan")


def test_two_names_for_one_tensor(tmp_path: Path) -> None:
    names = {k.replace("ups.", "upsampler."): v for k, v in random_state(SMALL).items()}
    names["ups.0.bias"] = names["upsampler.0.bias"].clone()
    save_file(names, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "speecht5_hifigan", "normalize_before": False}))
    refused(tmp_path, "'ups.0.bias' and 'upsampler.0.bias'")


def test_discriminator_file(tmp_path: Path) -> None:
    path = tmp_path / "do_00000000"
    msd = {
        "discriminators.0.convs.0.weight_orig": torch.zeros(4, 1, 15),
        "discriminators.0.convs.0.weight_v": torch.zeros(15),
    }
    torch.save({"mpd": {"discriminators.0.convs.0.bias": torch.zeros(2)}, "msd": msd, "steps": 1}, path)
    refused(path, "discriminators", "g_ file")


def test_foreign_files(tmp_path: Path) -> None:
    torch.save({"backbone.embed.weight": torch.zeros(3)}, tmp_path / "vocos.pt")
    refused(tmp_path / "vocos.pt", "no known vocoder", "backbone.embed.weight")
    torch.save([1, 2, 3], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "no known vocoder")
    for content in (b"", b"\0", b"hello", b"RIFF\0\0\0\0WAVEfmt ", b"\x89HDF\r\n\x1a\n" + bytes(600), b"PK\x03\x04"):
        path = tmp_path / "x.bin"
        path.write_bytes(content)
        refused(path, str(path))
    (tmp_path / "x.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    refused(tmp_path / "x.bin", "Git LFS pointer")


def test_folders(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "no such file or folder")
    refused(tmp_path, "no weights file in this folder")
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"")
    refused(tmp_path, "more than one weights file (a.safetensors, b.safetensors)")


@pytest.mark.parametrize("name", ["coqui", "espnet", "nemo", "parallel_wavegan", "speechbrain"])
def test_truncated(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / name, tmp_path / name)
    (folder / "io.safetensors").unlink()
    weights = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    data = weights.read_bytes().rstrip(b"\0")  # a tar ends in padding
    for length in (len(data) - 1, len(data) - 40, len(data) // 2, 600, 100, 1):
        weights.write_bytes(data[:length])
        refused(folder)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jik(tmp_path, random_state(SMALL))

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "Permission denied")
