"""What `fastvoc.graphs.graphed` needs to know of vocoders and codecs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError
from fastvoc.graphs.graphed import Request
from fastvoc.loaded import Lengths
from fastvoc.models.checks import item_seeds
from fastvoc.nn.model import Array, Input
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.registry import settings
from fastvoc.streams.stream import Check


class _Loaded:
    """The part that a loaded model of any kind has."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        # A tuple that is replaced, so that threads need no lock.
        self._witnesses: tuple[list[nn.Module | None], list[tuple[dict[str, Any], str]]] = ([], [])

    @property
    def device(self) -> torch.device:
        device: torch.device = self._loaded.device
        return device

    def settings(self) -> Hashable:
        """By one weight of each part of the model: asked for in every call, where a walk over all would be most of it.

        Moving or casting the model moves at least one of them, whichever parts stay wide.
        """
        parts = [*self._loaded.model._modules.values()]
        known, places = self._witnesses
        if parts != known:
            places = [place for part in parts if part is not None and (place := _first(part)) is not None]
            self._witnesses = parts, places
        found = tuple([(id(t), t.data_ptr(), t.dtype) for owner, key in places if (t := owner.get(key)) is not None])
        return found, self._loaded.backend, settings()

    def weights(self) -> object:
        return [layer.held() for layer in self._loaded.layers().values()]

    def check(self) -> None:
        self._loaded.check()


class MelGraphable(_Loaded):
    """A Vocoder's call."""

    def samples(self, frames: int) -> int:
        return int(self._loaded.config.samples(frames))

    def request(self, mel: Array, lengths: Lengths = None, *, check: Check = None, **inputs: Input) -> Request:
        voc = self._loaded
        batch, frames, single, further = voc.checked(mel, lengths, check, inputs)
        batch = batch.detach() if batch.requires_grad else batch
        count, _, steps = batch.shape
        counts = (steps,) * count if frames is None else tuple(frames.tolist())
        if "seed" in voc.model.inputs:
            seed = further.get("seed")
            further["seed"] = item_seeds(0 if seed is None else seed, count, batch.device)
        if further.get("speaker") is not None:  # as vectors, so that one graph serves all speakers
            further["speaker"] = voc.model.speaker_vectors(further["speaker"], count)
        tensors, choices = self._told(further, batch.device) if further else ({}, {})
        return Request(batch, voc.input_dtype, counts, tensors, choices, _alone if single else _of_batch)

    def _told(
        self, further: Mapping[str, Any], device: torch.device
    ) -> tuple[dict[str, tuple[Tensor, int]], dict[str, Hashable]]:
        """What a request has of the further inputs: tensors, and what a graph is made for."""
        steps = self._steps()
        tensors = {n: (v.detach(), steps.get(n, 0)) for n, v in further.items() if _on(v, device)}
        return tensors, {n: _hashable(n, v) for n, v in further.items() if n not in tensors}

    def blank(self, frames: int, count: int, example: Mapping[str, Any]) -> Request:
        device = self.device
        mel = torch.zeros((count, self._loaded.n_mels, frames), dtype=torch.float32, device=device)
        shapes = self._shapes(frames)
        if missing := [name for name, value in example.items() if value is True and name not in shapes]:
            raise ArgumentError(f"{missing[0]}: no tensor that this model takes; expected one of {sorted(shapes)}")
        inputs = {
            name: torch.zeros((count, *shapes[name]), dtype=torch.float32, device=device) if value is True else value
            for name, value in example.items()
        }
        return self.request(mel, check=False, **inputs)

    def run(self, x: Tensor, lengths: Tensor | None, inputs: Mapping[str, Any]) -> Tensor:
        voc = self._loaded
        with voc.computing(x.shape[0], x.shape[2] * voc.hop):
            y: Tensor = voc.model(x.to(voc.input_dtype), lengths, backend=voc.backend, **inputs)
        return y.float()

    def _shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that the model takes besides the mel, without the batch axis."""
        shapes: dict[str, tuple[int, ...]] = self._loaded.model.input_shapes(frames)
        return shapes

    def _steps(self) -> dict[str, int]:
        """Steps per frame of each of them."""
        one, two = self._shapes(1), self._shapes(2)
        return {name: two[name][-1] - one[name][-1] for name in one}


class DecodingGraphable(_Loaded):
    """A Codec's `decode`, for a model that takes a signal as a whole.

    Codes out of range are taken as the nearest there is; `check` tells of them.
    """

    def __init__(self, codec: Any) -> None:
        super().__init__(codec)
        if codec.config.segment_stride is not None or codec.config.normalize:
            raise ArgumentError("graphs: expected a codec that takes a signal as a whole, as EnCodec at 24 kHz")
        self._wrong = torch.zeros((), dtype=torch.bool, device=codec.device)

    def samples(self, frames: int) -> int:
        return int(self._loaded.config.samples(frames))

    def request(self, codes: Any, scale: Array | None = None, lengths: Lengths = None) -> Request:
        codec = self._loaded
        segments, _, frames, finish = codec.checked(codes, scale, lengths, values=self.device.type == "cpu")
        return Request(segments[0], torch.int64, tuple(row[0] for row in frames), {}, {}, finish)

    def blank(self, frames: int, count: int, example: Mapping[str, Any]) -> Request:
        config = self._loaded.config
        rows = sum(config.rates[: example.get("codebooks", config.n_q)])
        if unknown := sorted(set(example) - {"codebooks"}):
            raise ArgumentError(f"{unknown[0]}: no such input; a codec's graph takes codebooks")
        return self.request(torch.zeros((count, rows, frames), dtype=torch.int64, device=self.device))

    def run(self, x: Tensor, lengths: Tensor | None, inputs: Mapping[str, Any]) -> Tensor:
        codec = self._loaded
        codes = x.clamp(0, int(codec.config.bins) - 1)
        wrong = codes != x
        if lengths is not None:
            at = torch.arange(x.shape[2], device=x.device)
            wrong = wrong & (at < on_device(lengths, x)[:, None])[:, None]
        self._wrong.logical_or_(wrong.any())
        with codec.computing(x.shape[0], x.shape[2] * codec.hop):
            y: Tensor = codec.model.decode_segment(codes, None, lengths, codec.backend)
        return y.float()

    def check(self) -> None:
        wrong = bool(self._wrong)
        self._wrong.zero_()
        if wrong:
            last = int(self._loaded.config.bins) - 1
            raise ArgumentError(f"codes: expected values in 0..{last}, got others in a call since the last check")


def _alone(y: Tensor) -> Tensor:
    """[1, 1, S] -> [S]"""
    return y.flatten()


def _of_batch(y: Tensor) -> Tensor:
    """[B, 1, S] -> [B, S]"""
    return y.squeeze(1)


def _on(value: Any, device: torch.device) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.device == device)


def _hashable(name: str, value: Any) -> Hashable:
    """Numbers that a graph is made for."""
    if isinstance(value, Tensor):
        return tuple(value.flatten().tolist())
    return tuple(value) if isinstance(value, list) else value


def _first(part: nn.Module) -> tuple[dict[str, Any], str] | None:
    """Where the first parameter of a module lies."""
    for module in part.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                return module._parameters, key
    return None
