"""A small checkpoint in every dialect, and the same in other forms: weight norm, precision, wrapped names, shards."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from checkpoint_files import (
    DATA,
    SMALL,
    VITS,
    VITS_1,
    bigvgan_upstream,
    random_state,
    write_bigvgan,
    write_jik,
    write_kokoro,
    write_rvc,
    write_sovits,
    write_univnet,
    write_vits,
    write_xtts,
)
from codec_files import file_tensors, transformers_config
from codec_files import random_state as codec_state
from codec_models import UNUSUAL
from hift_files import DRAFT, draft_name, state_of, write_cosyvoice, write_hiftnet_model, yaml_of
from hift_files import SMALL as SMALL_HIFT
from safetensors.torch import load_file, save_file
from torch import Tensor
from vocos_files import CODES, MEL, draft, upstream, yaml_values
from vocos_files import random_state as vocos_state
from whole_codec_files import write_dac, write_dac_transformers, write_snac

from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.models.encodec_lm import EncodecLmConfig
from fastvoc.models.hift_config import HIFTNET
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.runtime.packing import fold_weight_norm
from fastvoc.training.config import TrainConfig

FORMS = ("folded", "weight_g", "parametrizations")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PAIRS = {
    "weight_g": ("weight_g", "weight_v"),
    "parametrizations": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}
_SIZES = {
    "model_in_dim": 80,
    "upsample_initial_channel": 8,
    "upsample_rates": [16, 16],
    "upsample_kernel_sizes": [32, 32],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}


def _copy(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        shutil.copytree(DATA / name, folder, dirs_exist_ok=True)
        (folder / "io.safetensors").unlink()

    return write


def _transformers(model_type: str, **fields: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        sizes = {name: value for name, value in _SIZES.items() if name not in ("model_in_dim",)}
        config = replace(SMALL, num_mels=80, mel=None, normalize_before=True, **sizes)
        names = {k.replace("ups.", "upsampler."): v for k, v in random_state(config).items()}
        text: dict[str, Any] = {"model_type": model_type, **_SIZES, **fields}
        if model_type.endswith("with_hifigan"):
            names = {f"vocoder.{k}": v for k, v in names.items()}
            text = {"model_type": model_type, "vocoder_config": {**_SIZES, **fields}}
        (folder / "config.json").write_text(json.dumps(text))
        save_file(names, folder / "model.safetensors")

    return write


def _bigvgan(folder: Path) -> None:
    write_bigvgan(folder, *bigvgan_upstream())


def _hiftnet(folder: Path) -> None:
    config = replace(HIFTNET, base_channels=8)
    state = {}
    for name, tensor in state_of(config).items():
        for ours, theirs in (
            ("source_downs.", "noise_convs."),
            ("source_resblocks.", "noise_res."),
        ):
            name = name.replace(ours, theirs)
        name = name.replace("f0_predictor.", "F0_model.")
        for i in (1, 2):
            head, found, rest = name.partition(f".activations{i}.")
            name = f"{head}.alpha{i}.{rest.removesuffix('.alpha')}" if found else name
        state[name] = tensor
    fields = {"resblock": "1", "sampling_rate": config.sample_rate, "upsample_initial_channel": 8}
    fields |= {"upsample_rates": config.upsample_rates, "upsample_kernel_sizes": config.upsample_kernel_sizes}
    fields |= {"gen_istft_n_fft": config.n_fft, "gen_istft_hop_size": config.istft_hop, "num_mels": config.num_mels}
    fields |= {"resblock_kernel_sizes": config.resblock_kernel_sizes, "n_fft": 1024, "win_size": 1024, "hop_size": 256}
    fields |= {"resblock_dilation_sizes": config.resblock_dilation_sizes, "fmin": 0, "fmax": 8000}
    (folder / "config.json").write_text(json.dumps(fields))
    torch.save({"generator": state}, folder / "g_00000001")


def _cosyvoice_with_front_end(folder: Path) -> None:
    config = SMALL_HIFT["cosyvoice3"]
    torch.save(state_of(config), folder / "hift.pt")
    feature = {"n_fft": 1920, "num_mels": 80, "sampling_rate": 24000, "hop_size": 480, "win_size": 1920}
    feature |= {"fmin": 0, "fmax": None, "center": False}
    (folder / "cosyvoice3.yaml").write_text(yaml_of(config) + yaml.safe_dump({"feat_extractor": feature}))


def _chatterbox(folder: Path) -> None:
    state = state_of(SMALL_HIFT["chatterbox"])
    save_file({f"mel2wav.{name}": tensor for name, tensor in state.items()}, folder / "s3gen.safetensors")


def _vocoder_draft(folder: Path) -> None:
    state = state_of(SMALL_HIFT["chatterbox"])
    save_file({draft_name(name, DRAFT["nsf"]): tensor for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "generator"}))


def _vocos(config: VocosConfig) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "config.yaml").write_text(yaml.safe_dump(yaml_values(config)))
        torch.save(upstream(vocos_state(config), config), folder / "pytorch_model.bin")

    return write


def _vocos_draft(folder: Path) -> None:
    save_file(draft(vocos_state(MEL), MEL, "late"), folder / "model.safetensors")
    config = {"model_type": "vocos", "n_mels": 100, "num_layers": 2, "hidden_size": 16, "intermediate_size": 40}
    (folder / "config.json").write_text(json.dumps(config))


def _vocos_trained(folder: Path) -> None:
    config = TrainConfig(generator="vocos", dim=16, intermediate_dim=40, num_layers=2)
    state = {name: torch.randn(shape) for name, shape in config.model().tensors()}
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    torch.save({"generator": state}, folder / "g_00000001")


def _encodec(shape: str, dialect: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config = UNUSUAL[shape]
        tensors = file_tensors(codec_state(config), config, dialect, "folded")
        if dialect == "original":
            torch.save(tensors, folder / "model.th")
            return
        (folder / "config.json").write_text(json.dumps(transformers_config(config)))
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")

    return write


def _language_model(folder: Path) -> None:
    config = EncodecLmConfig(24000, 32, dim=8, layers=2, hidden=12, past=262)
    torch.save({name: torch.randn(shape) for name, shape in config.tensors()}, folder / "lm.th")


def _without(writer: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        writer(folder)
        (folder / name).unlink()

    return write


DIALECTS: dict[str, Callable[[Path], object]] = {
    "jik876": lambda folder: write_jik(folder, random_state(SMALL)),
    "speecht5": _transformers("speecht5_hifigan", sampling_rate=16000),
    "speecht5 without a rate": _transformers("speecht5_hifigan"),
    "conformer": _transformers("fastspeech2_conformer_hifigan", sampling_rate=22050),
    "conformer with its acoustic model": _transformers("fastspeech2_conformer_with_hifigan"),
    "parallel_wavegan": _copy("parallel_wavegan"),
    "parallel_wavegan_plain": _copy("parallel_wavegan_plain"),
    "espnet": _copy("espnet"),
    "coqui": _copy("coqui"),
    "speechbrain": _copy("speechbrain"),
    "nemo": _copy("nemo"),
    "bigvgan": _bigvgan,
    "univnet": write_univnet,
    "univnet without its extractor": _without(write_univnet, "preprocessor_config.json"),
    "cosyvoice": write_cosyvoice,
    "cosyvoice with its front end": _cosyvoice_with_front_end,
    "chatterbox": _chatterbox,
    "hiftnet": _hiftnet,
    "hiftnet model draft": write_hiftnet_model,
    "hiftnet vocoder draft": _vocoder_draft,
    "vocos": _vocos(MEL),
    "vocos on codes": _vocos(CODES),
    "vocos draft": _vocos_draft,
    "vocos of fastvoc train": _vocos_trained,
    "encodec mono": _encodec("mono", "original"),
    "encodec stereo": _encodec("stereo", "original"),
    "encodec deep": _encodec("deep", "original"),
    "encodec identity shortcut": _encodec("identity-shortcut", "original"),
    "encodec transformers": _encodec("deep", "transformers"),
    "encodec language model": _language_model,
    "dac": write_dac,
    "dac without its values": lambda folder: write_dac(folder, stated=False),
    "dac transformers": write_dac_transformers,
    "snac": write_snac,
    "vits": lambda folder: write_vits(folder, "vits"),
    "vits transformers": lambda folder: write_vits(folder, "transformers", VITS_1),
    "vits coqui": lambda folder: write_vits(folder, "coqui", VITS_1),
    "vits piper": lambda folder: write_vits(folder, "piper", VITS),
    "vits piper without its configuration": _without(lambda folder: write_vits(folder, "piper", VITS_1), "config.json"),
    "rvc": write_rvc,
    "xtts": write_xtts,
    "xtts without its configuration": _without(write_xtts, "config.json"),
    "gpt-sovits": write_sovits,
    "kokoro": write_kokoro,
}


def written(dialect: str, folder: Path) -> Path:
    """The folder with a small checkpoint of the dialect in it."""
    for name, data in _files(dialect).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@cache
def _files(dialect: str) -> dict[Path, bytes]:
    """The files of such a folder, made once."""
    with TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
        folder = Path(name)
        torch.manual_seed(0)
        DIALECTS[dialect](folder)
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@cache
def plain(dialect: str) -> Checkpoint:
    """What is read of it, for tests that change nothing of it."""
    with TemporaryDirectory() as folder:
        return detect_and_load(written(dialect, Path(folder)))


def weights_file(folder: Path) -> Path:
    """The one weights file of a folder that `written` made."""
    texts = (".json", ".yaml", ".yml", ".h5", ".npy")
    (path,) = (path for path in folder.iterdir() if path.suffix not in texts)
    return path


def change(folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Rewrites every dictionary of tensors in the weights file of a folder."""
    path = weights_file(folder)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in edit(load_file(path)).items()}, path)
    elif path.suffix == ".nemo":
        with tarfile.open(path) as archive:
            files = {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}  # type: ignore[union-attr]
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                if name.endswith(".ckpt"):
                    weights = io.BytesIO()
                    torch.save(_edited(torch.load(io.BytesIO(data), weights_only=True), edit), weights)
                    data = weights.getvalue()
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        torch.save(_edited(torch.load(path, weights_only=True), edit), path)


def _edited(tree: Any, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Any:
    if any(isinstance(value, Tensor) for value in tree.values()):
        return edit(dict(tree))
    return {name: _edited(value, edit) if isinstance(value, Mapping) else value for name, value in tree.items()}


def in_form(form: str, dtype: torch.dtype) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """An edit to a form of weight norm and a type; constants of a model stay what rounding makes of them."""

    def edit(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        plain = _folded(tensors)
        split = {}
        for name, tensor in plain.items():
            if form == "folded" or not name.endswith(".weight") or tensor.dim() < 3:
                split[name] = tensor
                continue
            wide = tensor.double()
            magnitude = wide.flatten(1).norm(dim=1).reshape(-1, *[1] * (tensor.dim() - 1))
            for suffix, part in zip(_PAIRS[form], (magnitude, wide * 3), strict=True):
                split[name.removesuffix("weight") + suffix] = part
        return {n: t.to(dtype) if t.is_floating_point() else t for n, t in split.items()}

    return edit


def _folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = dict(tensors)
    for g_name, v_name in _PAIRS.values():
        for name in [name for name in plain if name.endswith(f".{g_name}")]:
            head = name.removesuffix(g_name)
            plain[f"{head}weight"] = fold_weight_norm(plain.pop(name), plain.pop(head + v_name))
    return plain


def shard(folder: Path, kind: str, count: int = 3) -> Path:
    """The weights of a folder spread over files with an index; returns it. `kind`: "safetensors" or "bin"."""
    path = weights_file(folder)
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    path.unlink()
    flat = dict(_flat(tensors))
    stem = "model" if kind == "safetensors" else "pytorch_model"
    places = {name: f"{stem}-{i % count + 1:05}-of-{count:05}.{kind}" for i, name in enumerate(flat)}
    for place in set(places.values()):
        part = {name: tensor.clone() for name, tensor in flat.items() if places[name] == place}
        (save_file if kind == "safetensors" else torch.save)(part, folder / place)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value
