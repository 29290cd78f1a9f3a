"""Every layer of a model in a call: how long it takes, what it does, and what this machine could do at most."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.codec import Codec
from fastvoc.explanation import explain
from fastvoc.nn.prepared import Prepared
from fastvoc.vocoder import Vocoder

_LEAST = 3


@dataclass(frozen=True)
class Ceilings:
    """What the machine was measured to do a second: operations of a matrix product, bytes that a copy moves."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class LayerTime:
    """A layer in one call: the median seconds, and what it does by its definition.

    flops: two for every multiply-add of the direct algorithm, which faster ones need less of; bytes: input, output and
    weights, once (`fastvoc.runtime.registry.Cost`).
    """

    layer: str
    op: str
    impl: str
    seconds: float
    flops: float
    bytes: float


@dataclass(frozen=True)
class Error:
    """How far a way to run a model lies from the same weights in float64: ||x - reference|| / ||reference||."""

    name: str
    relative_l2: float


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """A product of matrices in the type of the activations, and a copy of more than the caches hold."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 1024
    a = torch.ones((size, size), dtype=dtype, device=device)
    source = torch.ones(2**28 if on_gpu else 2**25, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    product = min(_times(lambda: a @ a, device))
    copied = min(_times(lambda: target.copy_(source), device))
    return Ceilings(2 * size**3 / product, 2 * source.numel() * source.element_size() / copied)


def layer_times(loaded: Vocoder | Codec, call: Callable[[], Any]) -> list[LayerTime]:
    """The layers that a call of this model runs through, in their order. Their names are those of `explain`."""
    chosen = {row.layer: (row.op, row.chosen or "none") for row in explain(loaded, loaded.backend)}
    layers = loaded.layers()
    seen: dict[str, list[_Seen]] = {}
    call()
    with _watched(layers, seen, loaded.device):
        call()  # binds what is watched
        seen.clear()
        for _ in range(_LEAST):
            call()
    times = []
    for name, runs in seen.items():
        calls = len(runs) // _LEAST  # of a layer in one call
        spent = statistics.median(sum(r.seconds for r in runs[i * calls : (i + 1) * calls]) for i in range(_LEAST))
        flops, moved = (sum(v) / _LEAST for v in zip(*((r.flops, r.bytes) for r in runs), strict=True))
        times.append(LayerTime(name, *chosen[name], spent, flops, moved))
    return times


def errors(loaded: Vocoder | Codec) -> list[Error]:
    """A call by default, exact, and by the torch reference, against the same weights in float64 on the same input.

    Of a codec, its decoding. An int8 model has no weights in float64: nothing then.
    """
    if loaded.dtype is torch.int8:
        return []
    wide = copy.deepcopy(loaded)
    wide.backend = "torch"
    wide.to(torch.float64)
    run = _runner(loaded)
    meant = run(wide, exact=False)
    plain = copy.deepcopy(loaded)
    plain.backend = "torch"
    plain.model.prepare(backend="torch")
    ways = {"default": run(loaded, exact=False), "exact": run(loaded, exact=True), "torch": run(plain, exact=False)}
    return [Error(name, ((y - meant).norm() / meant.norm()).item()) for name, y in ways.items()]


def _runner(loaded: Vocoder | Codec) -> Callable[..., Tensor]:
    """Runs a copy of a model on one input that all copies get."""
    draw = torch.Generator().manual_seed(0)
    if isinstance(loaded, Codec):
        wav = 0.1 * torch.randn(
            (loaded.channels, loaded.sample_rate // 2), generator=draw, dtype=torch.float32, device="cpu"
        )
        codes = loaded.encode(wav.to(loaded.device), loaded.bandwidths[0])
        return lambda one, exact: one.decode(codes, exact=exact).double()
    frames = max(40, loaded.model.min_frames)
    if loaded.mel_config is None:
        mel = torch.randn((loaded.n_mels, frames), generator=draw, dtype=torch.float32, device="cpu")
    else:
        size = frames * loaded.hop + loaded.mel_config.n_fft
        mel = loaded.mel(0.1 * torch.randn(size, generator=draw, dtype=torch.float32, device="cpu").to(loaded.device))
    mel = mel.to(loaded.device)
    further = loaded.model.warmup_inputs
    # Values are given out in float32, which is finer than any of the ways.
    return lambda one, exact: one(mel, check=False, exact=exact, **further).double()


@dataclass(frozen=True)
class _Seen:
    """One run of a layer."""

    seconds: float
    flops: float
    bytes: float


@contextmanager
def _watched(layers: Mapping[str, Prepared], seen: dict[str, list[_Seen]], device: torch.device) -> Iterator[None]:
    """Notes every run of these layers in a network."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timed(name: str, layer: Prepared) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        def wrap(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def once(x: Tensor, *more: Tensor | int | None) -> Tensor:
                start = now()
                y = run(x, *more)
                seconds = now() - start
                cost = layer.cost(x, *more)
                moved = cost.read_bytes + cost.written_bytes
                seen.setdefault(name, []).append(_Seen(seconds, 2.0 * cost.multiply_adds, moved))
                return y

            return once

        return wrap

    for name, layer in layers.items():
        layer.watch(timed(name, layer))
    try:
        yield
    finally:
        for layer in layers.values():
            layer.watch(None)


def _times(run: Callable[[], Any], device: torch.device) -> list[float]:
    run()
    times = []
    for _ in range(_LEAST):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return times
