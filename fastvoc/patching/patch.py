"""fastvoc's decoder in the place of another package's, inside a model that is loaded already, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fastvoc.errors import ArgumentError
from fastvoc.patching import hifigan, hift, kokoro
from fastvoc.patching.kinds import Kind, last_weight, names_of
from fastvoc.runtime.autocast import without_autocast

# One entry for each package: where its decoder is, and what makes ours of it.
KINDS: tuple[Kind, ...] = (*hifigan.KINDS, *hift.KINDS, *kokoro.KINDS)
_REPLACED = "_fastvoc_replaced"  # what a decoder of ours stands for
_NEAR, _NEAR_NARROW = 1e-3, 0.1  # relative L2 within which both must agree, in float32 and in 16 bits


@dataclass(frozen=True)
class Patched:
    """What `patch` did: `model` and `replaced` are class names, `place` the attributes that lead to the decoder."""

    model: str
    place: str
    replaced: str
    parameters: int

    def __str__(self) -> str:
        millions = f"{self.parameters / 1e6:.2f} million parameters"
        return f"{self.model}.{self.place}: {self.replaced} ({millions}) now runs on fastvoc"


@without_autocast
def patch(model: object) -> Patched:
    """Puts fastvoc's decoder into a loaded model of another package, which from then on is used as before.

    Takes Transformers' `VitsModel`, Coqui's `Vits`, `SynthesizerTrn` of the original VITS and its kin, CosyVoice 1 to 3
    (`CosyVoice`, `CosyVoice2`, `CosyVoice3` or their `.model`), Chatterbox (`ChatterboxTTS` or its `.s3gen`) and Kokoro
    (`KModel`, or a `KPipeline` that has one). The model is known by its attributes and their class names. Both decoders
    get a short input before anything is replaced, and must agree. The new one has the weights as they are now, frozen,
    in the same type and place, and follows `model.to(...)`; the old one is kept for `unpatch`. State dictionaries and
    training want the old one. Noise of HiFT's and Kokoro's sources follows torch's generator, with other values than
    the old one's.

    Raises ArgumentError for a model that is not known, is patched already, is in training mode, or whose decoder is
    built in another way, naming its class.
    """
    kind, owner, decoder = _find(model)
    name = kind.path[-1]
    if _REPLACED in decoder.__dict__:
        raise ArgumentError(f"model: the {name} of this {type(model).__name__} runs on fastvoc already")
    if decoder.training or getattr(model, "training", False) is True:
        raise ArgumentError(f"model: this {type(model).__name__} is in training mode; call eval() first")
    with torch.no_grad():
        own = kind.make(decoder)
        _check(decoder, own, kind)
    object.__setattr__(own, _REPLACED, decoder)  # no part: its tensors are not the model's any more
    setattr(owner, name, own)
    count = sum(parameter.numel() for parameter in own.parameters())
    return Patched(type(model).__name__, ".".join(kind.path), type(decoder).__name__, count)


def unpatch(model: object) -> None:
    """Puts the decoder back that `patch` replaced, where the model is now, in its type and its mode.

    Raises ArgumentError for a model that is not known or not patched.
    """
    kind, owner, own = _find(model)
    decoder = own.__dict__.get(_REPLACED)
    if decoder is None:
        raise ArgumentError(f"model: the {kind.path[-1]} of this {type(model).__name__} is not fastvoc's")
    last = last_weight(own)
    decoder.to(last.device, last.dtype)
    decoder.train(own.training)
    setattr(owner, kind.path[-1], decoder)


def _find(model: object) -> tuple[Kind, object, nn.Module]:
    """The kind of a model, the object that has its decoder as an attribute, and the decoder."""
    seen = []
    for kind in KINDS:
        owner: object = model
        for name in kind.path[:-1]:
            owner = getattr(owner, name, None)
        decoder = getattr(owner, kind.path[-1], None)
        if not isinstance(decoder, nn.Module):
            continue
        if set(kind.classes) & set(names_of(decoder)):
            return kind, owner, decoder
        seen.append(f"{'.'.join(kind.path)} is a {type(decoder).__name__}")
    found = f" ({', '.join(dict.fromkeys(seen))})" if seen else ""
    known = ", ".join(dict.fromkeys(kind.package for kind in KINDS))
    raise ArgumentError(f"model: no decoder that is known in a {type(model).__name__}{found}; expected {known}")


def _check(decoder: nn.Module, own: nn.Module, kind: Kind) -> None:
    """Raises ArgumentError unless both give the same."""
    for theirs, ours in kind.compare(decoder, own):
        near = _NEAR if theirs.dtype.itemsize >= 4 else _NEAR_NARROW
        error = float("inf")
        if ours.shape == theirs.shape:
            error = float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-30))
        if not error <= near:
            where = f"{type(decoder).__name__} computes something else than fastvoc's decoder with its weights"
            raise ArgumentError(f"model: {where}: relative L2 {error:.2g}, expected at most {near:g}")
