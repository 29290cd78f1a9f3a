"""Measures a loaded model on this machine: calls, streams, memory, and which implementation each op runs with."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.codec import Codec, Codes
from fastvoc.errors import ArgumentError
from fastvoc.explanation import explain
from fastvoc.runtime import library as _library
from fastvoc.vocoder import Vocoder

_LEAST = 3


@dataclass(frozen=True)
class CallTime:
    """One kind of call: seconds of audio per item, and the median and 95 % of the seconds that it took."""

    name: str
    seconds: float
    batch: int
    median_s: float
    p95_s: float
    rounds: int
    torch_s: float | None = None  # of the torch reference, timed in turn
    speedup: float | None = None  # over it, median of the rounds

    @property
    def real_time(self) -> float:
        """Seconds of audio per second."""
        return self.batch * self.seconds / self.median_s


@dataclass(frozen=True)
class StreamTime:
    """A stream by chunks of `chunk` frames: seconds until the first samples came, and for a chunk after that."""

    name: str
    chunk: int
    chunk_ms: float
    first_s: float
    median_s: float
    latency_ms: float | None

    @property
    def real_time(self) -> float:
        """Seconds of audio per second."""
        return 1e-3 * self.chunk_ms / self.median_s


@dataclass(frozen=True)
class Report:
    """What was measured. `layers` counts layers by implementation and op."""

    kind: str
    dtype: str
    machine: dict[str, Any]
    calls: tuple[CallTime, ...]
    streams: tuple[StreamTime, ...]
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    weights_mb: float = 0.0
    peak_mb: float = 0.0

    def to_json(self) -> str:
        """Everything as JSON."""
        values = asdict(self)
        for key in ("calls", "streams"):
            for row, item in zip(values[key], getattr(self, key), strict=True):
                row["real_time"] = item.real_time
        return json.dumps(values, indent=1)


def measure(
    loaded: Vocoder | Codec,
    seconds: Sequence[float] = (0.1, 1.0, 10.0),
    batch: Sequence[int] = (1,),
    *,
    compare: bool = False,
    chunk: int = 5,
    bandwidth: float | None = None,
    budget: float = 2.0,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Times calls on random inputs.

    Args:
        loaded: what `fastvoc.load` returned.
        seconds: of audio per item, at least one frame.
        batch: items of a call.
        compare: also time the torch reference, call by call in turn.
        chunk: frames of a stream's chunk.
        bandwidth: kbit/s of a codec; its second lowest when None.
        budget: seconds for one measurement, but not fewer than three rounds.
        progress: told what is measured next.

    Raises:
        ArgumentError: a bandwidth that the codec has not, or one for a vocoder.
    """
    say = progress or (lambda _: None)
    bandwidth = default_bandwidth(loaded, bandwidth)
    calls = []
    for items in batch:
        for wanted in seconds:
            frames = max(1, round(wanted * loaded.sample_rate / loaded.hop))
            for name, run in _calls(loaded, frames, items, bandwidth).items():
                say(f"{name}, {items} x {wanted:g} s")
                audio = frames * loaded.hop / loaded.sample_rate
                calls.append(_time(loaded, name, run, audio, items, compare, budget))
    say("streams")
    streams = measure_streams(loaded, chunk, bandwidth=bandwidth, budget=budget)
    counted: dict[str, Counter[str]] = {}
    for layer in explain(loaded, loaded.backend):
        counted.setdefault(layer.chosen or "none", Counter())[layer.op] += 1
    weights = sum(t.numel() * t.element_size() for t in loaded.model.state_dict().values())
    return Report(
        type(loaded.model).__name__,
        str(loaded.dtype).removeprefix("torch."),
        _machine(loaded.device),
        tuple(calls),
        tuple(streams),
        {impl: dict(ops) for impl, ops in counted.items()},
        weights / 2**20,
        _peak_mb(loaded.device),
    )


def measure_streams(
    loaded: Vocoder | Codec, chunk: int, *, bandwidth: float | None = None, budget: float = 2.0
) -> list[StreamTime]:
    """Times the streams that a model has by chunks of so many frames; arguments as `measure` has them."""
    made = _streams(loaded, chunk, default_bandwidth(loaded, bandwidth))
    return [_stream(loaded, name, push, chunk, budget) for name, push in made.items()]


def default_bandwidth(loaded: Vocoder | Codec, bandwidth: float | None) -> float | None:
    """That of a codec's measurements. Raises ArgumentError for one that it has not, or one for a vocoder."""
    if isinstance(loaded, Codec):
        bandwidth = sorted(loaded.bandwidths)[:2][-1] if bandwidth is None else bandwidth
        loaded.check_bandwidth(bandwidth)
    elif bandwidth is not None:
        raise ArgumentError(f"bandwidth: {type(loaded.model).__name__} is no codec")
    return bandwidth


def example_call(loaded: Vocoder | Codec, seconds: float, bandwidth: float | None = None) -> Callable[[], Any]:
    """One call on so much audio, of a codec its decoding."""
    frames = max(1, round(seconds * loaded.sample_rate / loaded.hop))
    return list(_calls(loaded, frames, 1, default_bandwidth(loaded, bandwidth)).values())[-1]


def _calls(loaded: Vocoder | Codec, frames: int, items: int, bandwidth: float | None) -> dict[str, Callable[[], Any]]:
    draw = torch.Generator().manual_seed(0)
    if isinstance(loaded, Codec):
        rate = bandwidth or 0.0
        wav = 0.1 * _drawn((items, loaded.channels, frames * loaded.hop), draw).to(loaded.device)
        codes: Codes = loaded.encode(wav, rate, check=False)
        return {
            "encode": lambda: loaded.encode(wav, rate, check=False),
            "decode": lambda: loaded.decode(codes),
        }
    least, further = loaded.model.min_frames, loaded.model.warmup_inputs
    mel = _drawn((items, loaded.n_mels, max(frames, least)), draw).to(loaded.device)
    return {"call": lambda: loaded(mel, check=False, **further)}


def _drawn(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=draw, dtype=torch.float32, device="cpu")


def _streams(loaded: Vocoder | Codec, chunk: int, bandwidth: float | None) -> dict[str, Callable[[], Any]]:
    """By name, what makes a stream and the chunk that it is given again and again."""
    draw = torch.Generator().manual_seed(0)
    if isinstance(loaded, Codec):
        rate = bandwidth or 0.0
        books = loaded.config.codebooks(rate)
        rows = sum(loaded.config.rates[:books])
        wav = 0.1 * _drawn((loaded.channels, chunk * loaded.hop), draw).to(loaded.device)
        codes = torch.randint(0, loaded.config.bins, (rows, chunk), generator=draw, device="cpu").to(loaded.device)
        sides = {"encoding stream": (loaded.encoding(rate), wav), "decoding stream": (loaded.decoding(books), codes)}
        return {name: partial(_begun, *side) for name, side in sides.items() if _has_stream(side[0])}
    options = loaded.model.warmup_inputs
    mel = _drawn((loaded.n_mels, chunk), draw).to(loaded.device)
    return {"stream": lambda: (loaded.stream(**options), mel)} if _has_stream(loaded, **options) else {}


def _begun(side: Any, value: Any) -> tuple[Any, Any]:
    return side.stream(), value


def _has_stream(source: Any, **options: Any) -> bool:
    """Not for a model that reads all frames, or whole segments, at once."""
    try:
        source.stream(**options)
    except ArgumentError:
        return False
    return True


def _stream(loaded: Vocoder | Codec, name: str, make: Callable[[], Any], chunk: int, budget: float) -> StreamTime:
    first: list[float] = []
    later: list[float] = []
    for turn in range(_LEAST):
        stream, value = make()
        until, spent, waiting = time.perf_counter() + budget / _LEAST, 0.0, True
        while waiting or len(later) < _LEAST * (turn + 1) or time.perf_counter() < until:
            took, made = _took(partial(stream.push, value), loaded.device)
            spent += took
            if not waiting:
                later.append(took)
            elif made.shape[-1]:
                first.append(spent)
                waiting = False
    latency = loaded.latency.ms if isinstance(loaded, Vocoder) else None
    frame_ms = 1000 * chunk * loaded.hop / loaded.sample_rate
    return StreamTime(name, chunk, frame_ms, statistics.median(first), statistics.median(later), latency)


def _took(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    began = time.perf_counter()
    made = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, made


def _time(
    loaded: Vocoder | Codec,
    name: str,
    run: Callable[[], Any],
    seconds: float,
    items: int,
    compare: bool,
    budget: float,
) -> CallTime:
    def reference() -> None:
        forced, loaded.backend = loaded.backend, "torch"
        try:
            run()
        finally:
            loaded.backend = forced

    runs = {"ours": run} | ({"torch": reference} if compare else {})
    for once in runs.values():
        once()
    times: dict[str, list[float]] = {key: [] for key in runs}
    until = time.perf_counter() + budget
    while len(times["ours"]) < _LEAST or time.perf_counter() < until:
        for key, once in runs.items():
            times[key].append(_took(once, loaded.device)[0])
    own = sorted(times["ours"])
    theirs = times.get("torch")
    return CallTime(
        name,
        seconds,
        items,
        statistics.median(own),
        own[min(int(0.95 * len(own)), len(own) - 1)],
        len(own),
        None if theirs is None else statistics.median(theirs),
        None if theirs is None else statistics.median(a / b for a, b in zip(theirs, times["ours"], strict=True)),
    )


def _machine(device: torch.device) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return {
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": _library.cpu_isa() if _library.cpu_problem() is None else "none: the C++ library is not loaded",
        "torch": torch.__version__,
    }


def _peak_mb(device: torch.device) -> float:
    """The most memory that was held: of the GPU, else of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
