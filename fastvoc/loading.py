"""A name, a file, a folder or a hub id in, a ready `Vocoder` or `Codec` out; and back into one file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import torch
from torch.overrides import TorchFunctionMode

from fastvoc.checkpoints import Checkpoint, Origin, describe, detect_and_load
from fastvoc.checkpoints import save as save_checkpoint
from fastvoc.checkpoints.int8_state import int8_note
from fastvoc.checkpoints.origins import warn_assumed, with_given
from fastvoc.codec import Codec
from fastvoc.errors import DeviceError, DtypeError, LoadError
from fastvoc.hub import download as hub
from fastvoc.loaded import LoadedModel
from fastvoc.models.families import meta_model
from fastvoc.models.whole_codec import CodecModel
from fastvoc.nn.model import Model
from fastvoc.nn.quantized import RANGE, is_int8
from fastvoc.runtime import library
from fastvoc.runtime.io import given_path
from fastvoc.runtime.stats import log
from fastvoc.sound.mel import MelConfig
from fastvoc.styled import StyledVocoder
from fastvoc.vocoder import Vocoder

if TYPE_CHECKING:
    from typing_extensions import Unpack
_ASSETS = Path(__file__).parent / "assets"
EMBEDDED = {
    "hifigan": _ASSETS / "hifigan_v2_voice.safetensors",
    "vocos-22k": _ASSETS / "vocos_22k_voice.safetensors",
}
_CODECS = ("dac", "encodec", "mimi", "snac")
_LANGUAGE_MODELS = ("encodec_lm",)
_STYLED = ("kokoro",)
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}


class SkipInit(TorchFunctionMode):
    """Leaves new parameters as they are: about to be replaced, and the caller's random numbers are not ours to use."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if getattr(func, "__module__", "") == "torch.nn.init" else func(*args, **kwargs)


@dataclass(frozen=True)
class ModelInfo:
    """A model that `load` knows by name: sample rate in Hz, `where` it comes from, whether it needs no network.

    `size` in bytes and `licence` are the hub's own words at the time of the download; None and "unknown" before it.
    """

    name: str
    family: str
    sample_rate: int
    where: str
    cached: bool
    size: int | None
    licence: str


class LoadOptions(TypedDict, total=False):
    """What `load` takes besides the name."""

    device: str | torch.device | None
    dtype: str | torch.dtype | None
    backend: str | None
    sample_rate: int | None
    mel: MelConfig | None


@overload
def load(
    name: Literal["hifigan", "vocos-22k", "hiftnet", "vocos", "bigvgan"], **options: Unpack[LoadOptions]
) -> Vocoder: ...
@overload
def load(name: Literal["encodec", "dac", "mimi", "snac"], **options: Unpack[LoadOptions]) -> Codec: ...
@overload
def load(name: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Vocoder | Codec: ...
def load(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    sample_rate: int | None = None,
    mel: MelConfig | None = None,
) -> Vocoder | Codec:
    """Loads a model, ready to call: a `Vocoder`, or a `Codec` where the model is one.

    `load_vocoder` and `load_codec` say which it has to be, also to a type checker.

    Args:
        name: "hifigan" or "vocos-22k" (the embedded voices), "hiftnet", "vocos", "encodec", "dac", "mimi", "snac" or
            "bigvgan" (on the hub), a weights file, a folder with one, or a hub id `owner/name[@revision]`. The dialect
            is recognised from the file (see `fastvoc.checkpoints`).
        device: where it runs; the CPU when None.
        dtype: "fp32", "fp16", "bf16" or the torch dtype of the weights; float32 when None. On a CPU without products
            of bfloat16, where it would only take longer, "bf16" gives float32, which `voc.dtype` and `fastvoc.explain`
            tell, unless a backend is forced. A file of `fastvoc convert --int8` gives an int8 model when None or
            "int8", else its rounded weights in that dtype.
        backend: implementation to force for every op; the best available when None.
        sample_rate, mel: rate in Hz and front end of a checkpoint whose files do not say them. Where neither they nor
            these do, what is taken gives an `AssumptionWarning`; `fastvoc info` tells it apart from what was read.

    Raises:
        LoadError: the model cannot be found, fetched or read; the message names the file and what is wrong with it.
        DtypeError, DeviceError: no such dtype or device.
        ArgumentError: a rate or front end that the model cannot have, or other than its files say.
        BackendError: the forced backend cannot run this model.
    """
    return _load(name, None, device, dtype, backend, sample_rate, mel)


def load_vocoder(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    sample_rate: int | None = None,
    mel: MelConfig | None = None,
) -> Vocoder:
    """`load` for a vocoder. Raises LoadError for a codec, before its weights are packed, and what `load` raises."""
    voc = _load(name, Vocoder, device, dtype, backend, sample_rate, mel)
    assert isinstance(voc, Vocoder)
    return voc


def load_codec(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    sample_rate: int | None = None,
    mel: MelConfig | None = None,
) -> Codec:
    """`load` for a codec. Raises LoadError for a vocoder, before its weights are packed, and what `load` raises."""
    codec = _load(name, Codec, device, dtype, backend, sample_rate, mel)
    assert isinstance(codec, Codec)
    return codec


def _load(
    name: str | os.PathLike[str],
    kind: type[Vocoder] | type[Codec] | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    backend: str | None,
    sample_rate: int | None,
    mel: MelConfig | None,
) -> Vocoder | Codec:
    wanted, target = None if dtype is None else parse_dtype(dtype), parse_device(device)
    checkpoint = read_checkpoint(name)
    family = checkpoint.config.family
    if family in _LANGUAGE_MODELS:
        raise LoadError(f"{name}: a language model for .ecdc streams, no codec; see fastvoc.load_language_model")
    if kind is not None and kind is not _kind(family):
        found, other = ("vocoder", "codec") if kind is Codec else ("codec", "vocoder")
        raise LoadError(f"{name}: a {found} ({family}), expected a {other}; see fastvoc.load_{found}")
    checkpoint = with_given(checkpoint, sample_rate, mel)
    if wanted is None:
        wanted = torch.float32 if checkpoint.quantization is None else torch.int8
    warn_assumed(name, checkpoint, stacklevel=3)
    result = loaded(checkpoint, target, wanted, backend)
    log.info("loaded %s: %r", name, result)
    for note in result.notes:
        log.info("%s: %s", name, note)
    return result


def _kind(family: str) -> type[Vocoder] | type[Codec]:
    return Codec if family in _CODECS else Vocoder


def loaded(
    checkpoint: Checkpoint,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> Vocoder | Codec:
    """What `load` makes of a checkpoint. Raises BackendError and DtypeError as `load`."""
    notes: tuple[str, ...] = ()
    if dtype is torch.bfloat16 and backend is None and (device is None or device.type == "cpu"):
        slower = library.bfloat16_problem()
        if slower is not None:
            dtype, notes = torch.float32, (f"computes in float32, not in bfloat16: {slower}",)
    model = model_of(checkpoint, device, dtype, backend)
    if dtype is torch.int8:
        notes = (int8_note(checkpoint),)
    if dtype is torch.bfloat16 and (device is None or device.type == "cpu"):
        kept = model.settle(lambda: model_of(checkpoint, device, torch.float32, backend), backend)
        if kept:
            notes = (f"float32, for what they would lose in bfloat16, in {', '.join(kept)}",)
    result: Vocoder | Codec
    if isinstance(model, CodecModel):
        result = Codec(model, checkpoint.config, backend=backend)
    else:
        kind = StyledVocoder if checkpoint.config.family in _STYLED else Vocoder
        result = kind(model, checkpoint.config, checkpoint.config.mel, backend=backend)
    result.assumed, result.notes = checkpoint.assumed, notes
    return result


def model_of(
    checkpoint: Checkpoint,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> Model:
    """The module of a checkpoint, with its weights frozen and packed. Raises BackendError and DtypeError as `load`."""
    if dtype is torch.int8 and checkpoint.quantization is None:
        raise DtypeError(
            "dtype: int8 asked for, but this file holds no ranges; fastvoc convert --int8 makes one that does"
        )
    model = meta_model(checkpoint.config)  # whose tensors the checkpoint's replace
    state = {name: tensor for name, tensor in checkpoint.state.items() if name.rpartition(".")[2] != RANGE}
    if dtype is torch.int8:
        for name, layer in model.int8_layers().items():
            layer.input_range = checkpoint.state.get(f"{name}.{RANGE}")
        state, dtype = checkpoint.state, torch.float32
    model.load_state_dict(state, assign=True)
    # float32 first: windows are wider where torch's default is, and casts to less leave them so.
    model.eval().requires_grad_(False).float().to(device=device, dtype=dtype)
    model.prepare(backend=backend)
    return model


def read_checkpoint(name: str | os.PathLike[str], options: hub.Options | None = None) -> Checkpoint:
    """What `load` builds its model from: configuration and folded float32 weights of a name, file, folder or hub id.

    options: of a hub id; which file, and which subfolder, also of a folder.
    """
    options = hub.Options() if options is None else options
    if not isinstance(name, str | os.PathLike):
        raise DtypeError(f"name: expected a text or a path, got {type(name).__name__}")
    if isinstance(name, str) and name in EMBEDDED:
        return detect_and_load(EMBEDDED[name])
    path = given_path(name)
    if path.exists() or not isinstance(name, str):
        return detect_and_load(wanted_file(path, options))
    name = hub.ALIASES.get(name, name)
    if not hub.is_hub_id(name):
        known = ", ".join([*EMBEDDED, *hub.ALIASES, *(model.repo for model in hub.KNOWN)])
        raise LoadError(f"{name}: no such file or folder, and no model of that name (known: {known})")
    return detect_and_load(wanted_file(hub.fetch(name, options), replace(options, subfolder="")))


def wanted_file(path: Path, options: hub.Options) -> Path:
    """A weights file, or in a folder the one that the options ask for; the folder itself where they ask for none.

    Raises LoadError when no file of the folder is what they ask for.
    """
    folder = path / options.prefix
    if not folder.is_dir() or (options.use_safetensors is None and options.variant is None):
        return folder if options.prefix else path
    found = options.weights_among(file.name for file in folder.iterdir())
    if len(found) != 1:
        asked = f"use_safetensors={options.use_safetensors}, variant={options.variant!r}"
        raise LoadError(f"{folder}: expected one weights file for {asked}, found {', '.join(found) or 'none'}")
    return folder / found[0]


def list_models() -> list[ModelInfo]:
    """The models that `load` knows by name: the embedded ones, then those on the hub."""
    models = []
    for name, path in EMBEDDED.items():
        config, metadata = describe(path)
        licence = metadata.get("licence", "unknown")
        size = path.stat().st_size
        models.append(ModelInfo(name, config.family, config.sample_rate, "embedded", True, size, licence))
    for model in hub.KNOWN:
        stated = hub.facts(model.repo)
        cached, licence = hub.is_cached(model.repo), stated.licence or "unknown"
        total = sum(stated.sizes.values()) or None
        models.append(ModelInfo(model.repo, model.family, model.sample_rate, "hub", cached, total, licence))
    return models


def save(
    model: LoadedModel | Checkpoint, path: str | os.PathLike[str], *, dtype: str | torch.dtype | None = None
) -> None:
    """Writes a model to one safetensors file with its configuration and a checksum inside; `load` reads it.

    The tensors are stored in `dtype` ("fp32", "fp16", "bf16" or a torch dtype; float32 when None). Equal models give
    equal bytes; a file at `path` is replaced at once or not at all.
    An int8 model is stored in int8 and float32, whose weights then are a quarter as large.
    Raises DtypeError for another dtype and ArgumentError when a weight does not fit into it.
    """
    if isinstance(model, LoadedModel):
        state = {name: tensor.float().cpu() for name, tensor in model.model.state_dict().items()}
        origins = {fact: Origin("assumed", why) for fact, why in model.assumed.items()}
        quantization = "int8" if is_int8(model.model) else None
        model = Checkpoint(model.config, state, "fastvoc", quantization=quantization, origins=origins)
    save_checkpoint(model, Path(path), parse_dtype(dtype))


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """The torch dtype of "fp32", "fp16", "bf16", "int8" or itself; float32 for None. DtypeError for any other."""
    wanted = _DTYPES.get(dtype) if isinstance(dtype, str) else torch.float32 if dtype is None else dtype
    if wanted is None or wanted not in _DTYPES.values():
        raise DtypeError(f"dtype: expected fp32, fp16, bf16 or int8, got {dtype!r}")
    return wanted


def parse_device(device: str | torch.device | None) -> torch.device:
    """The torch device of a name or itself; the CPU for None. Raises DeviceError for any that is not there."""
    try:
        target = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"device: {error}") from None
    if target.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device: {target} asked for, but torch sees no CUDA device")
    return target
