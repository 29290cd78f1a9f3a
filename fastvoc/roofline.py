"""Every layer of a model in a call: how long it takes, what it does, and what this machine could do at most."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.codec import Codec
from fastvoc.explanation import explain
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

    flops: two for every weight and step, which faster algorithms need less of; bytes: input, output and weights, once.
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
    modules = dict(loaded.model.named_modules())
    found = {name: modules[name] for name in chosen if name in modules}
    seen: dict[str, _Seen] = {}
    with torch.inference_mode():
        call()
        for _ in range(_LEAST):
            with _watched(found, seen, loaded.device):
                call()
    return [
        LayerTime(name, *chosen[name], statistics.median(one.seconds), one.flops, one.bytes)
        for name, one in seen.items()
    ]


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
        return lambda one, exact: one.decode(codes).double()
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


@dataclass
class _Seen:
    """A layer in the calls so far."""

    seconds: list[float]
    flops: float
    bytes: float


@contextmanager
def _watched(modules: dict[str, nn.Module], seen: dict[str, _Seen], device: torch.device) -> Iterator[None]:
    """Notes the time between a module's input and its output, added up where a call runs it more than once."""
    spent: dict[str, float] = {}
    began: dict[str, float] = {}
    work: dict[str, tuple[float, float]] = {}

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def before(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            began[name] = now()

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            spent[name] = spent.get(name, 0.0) + now() - began[name]
            flops, moved = _work(module, inputs, output)
            known = work.get(name, (0.0, 0.0))
            work[name] = known[0] + flops, known[1] + moved

        return hook

    handles = [module.register_forward_pre_hook(before(name)) for name, module in modules.items()]
    handles += [module.register_forward_hook(after(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for name, seconds in spent.items():
        one = seen.setdefault(name, _Seen([], *work[name]))
        one.seconds.append(seconds)


def _work(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> tuple[float, float]:
    tensors = [x for x in (*inputs, output) if isinstance(x, Tensor)]
    weights = list(module.parameters())
    moved = sum(t.numel() * t.element_size() for t in (*tensors, *weights))
    if len(tensors) < 2:
        return 0.0, moved
    steps = min(tensors[0].shape[-1], tensors[-1].shape[-1]) * tensors[0].shape[0]
    return 2.0 * steps * sum(w.numel() for w in weights if w.dim() > 1), moved


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
