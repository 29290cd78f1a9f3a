"""A loaded model as an ONNX file."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from fastvoc.errors import ArgumentError, DtypeError, ExportError, shown
from fastvoc.exporting import attention, convolutions, quantizers, recurrent, sherpa, source, spectral, styled  # noqa: F401  # which note what they write
from fastvoc.exporting.emitters import emit
from fastvoc.exporting.graph import Graph
from fastvoc.exporting.package import wide
from fastvoc.exporting.wire import Wire
from fastvoc.loaded import LoadedModel
from fastvoc.nn.layer import Part
from fastvoc.nn.model import Model, Written
from fastvoc.nn.network import Step, Trace
from fastvoc.runtime.io import atomic_path

Runtime = Literal["sherpa-onnx"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)
_DTYPES = {"fp32": False, "fp16": True}
_AXES = ("batch", "channels", "samples")
_MOST_SEED = 1 << 23  # ONNX has seeds as float32, whose whole numbers end at twice that: room to count up


def export(
    loaded: LoadedModel,
    path: str | os.PathLike[str],
    *,
    inputs: Collection[str] = (),
    runtime: Runtime | None = None,
    dtype: str = "fp32",
    seed: int = 0,
) -> None:
    """Writes a vocoder, or a codec's decoder, to an ONNX file that runs without torch and fastvoc.

    The file takes what the model takes and gives `audio` [batch, channels, samples]: a vocoder `mel` [batch, n_mels,
    frames] (`latent` for VITS decoders), a decoder `codes` [batch, codebooks, frames] int64, besides what it cannot do
    without: `speaker`, `bandwidth_id` (int64 [batch]), or the `scale` [batch] of EnCodec at 48 kHz, whose file decodes
    one segment. Items of a batch have one length. F0 and noise are made in the graph; the runtime draws the noise.
    Opset 17; transforms are matrix products, and nothing in the file is fastvoc's own.

    Args:
        loaded: a `Vocoder` or `Codec` in any floating-point type; the file computes in float32.
        path: the file, replaced at once or not at all.
        inputs: names of the model's further inputs that come from outside in place of what the graph would make: for
            HiFT "f0" [batch, frames], "phase" [batch, harmonics + 1] and "noise" [batch, harmonics + 1, samples], or
            "source" [batch, 1, samples]; for UnivNet "noise" [batch, channels, frames]. As the arguments of a call.
        runtime: "sherpa-onnx" adds what its vocoders ask for, and gives them the spectrum where they invert it
            themselves; None for everything else.
        dtype: "fp16" stores large weights in 16 bits, for the same computation.
        seed: of the noise that the runtime draws, 0 to 2^23, which differs from fastvoc's and between runtimes.

    Raises:
        ExportError: a layer or input that cannot be exported, by name, before a file is written.
        FastvocError: the package onnx is not installed.
        DtypeError: another `dtype`, or an argument of another type.
        ArgumentError: a path that cannot be that of a file, or a seed out of range.
        OSError: the file cannot be written.
    """
    target = _target(path)
    data = serialized(loaded, inputs=inputs, runtime=runtime, dtype=dtype, seed=seed)
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def _target(path: object) -> Path:
    """The file to write. Raises DtypeError or ArgumentError for what cannot be one."""
    if not isinstance(path, str | os.PathLike):
        raise DtypeError(f"path: expected a text or a path, got {type(path).__name__}")
    target = Path(path)
    if not str(path).strip() or not target.name or target.is_dir():
        raise ArgumentError(f"path: expected the name of a file, got {'a folder, ' if target.is_dir() else ''}{path!r}")
    return target


def serialized(
    loaded: LoadedModel,
    *,
    inputs: Collection[str] = (),
    runtime: Runtime | None = None,
    dtype: str = "fp32",
    seed: int = 0,
) -> bytes:
    """The bytes that `export` writes. Raises as it does."""
    if not isinstance(loaded, LoadedModel):
        raise DtypeError(f"loaded: expected a Vocoder or a Codec, got {type(loaded).__name__}")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise DtypeError(f"dtype: expected fp32 or fp16, got {dtype!r}")
    if runtime is not None and (not isinstance(runtime, str) or runtime not in RUNTIMES):
        raise ExportError(f"runtime: expected one of {', '.join(RUNTIMES)} or None, got {runtime!r}")
    if isinstance(inputs, str):
        raise DtypeError(f"inputs: expected names, got the text {inputs!r}")
    if not isinstance(inputs, Collection) or not all(isinstance(name, str) for name in inputs):
        raise DtypeError(f"inputs: expected names, got {shown(inputs)}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise DtypeError(f"seed: expected an integer, got {type(seed).__name__}")
    if not 0 <= seed <= _MOST_SEED:
        raise ArgumentError(f"seed: expected 0..{_MOST_SEED}, got {shown(seed)}")
    model = loaded.model
    stated = model.written(inputs)
    graph = Graph({id(p): name for name, p in model.named_parameters()}, half=_DTYPES[dtype], seed=seed)
    steps, last, wires = _trace(model, stated, graph)
    metadata = {
        "family": str(loaded.config.family),
        "sample_rate": str(loaded.sample_rate),
        "hop_length": str(loaded.hop),
        "config": json.dumps(loaded.config.to_dict(), sort_keys=True),
    }
    if (mel := getattr(loaded, "mel_config", None)) is not None:
        metadata["mel"] = json.dumps(mel.to_dict(), sort_keys=True)
    with torch.no_grad():
        if runtime is not None:
            sherpa.check(stated.inputs)
            if sherpa.inverts(steps[-1]):
                head, more = sherpa.spectrum(steps[-1], write_steps(graph, steps[:-1], wires)[steps[-1].inputs[0]])
                return graph.file(head, {**metadata, **more})
            metadata |= sherpa.METADATA
        audio = write_steps(graph, steps, wires)[last].to(torch.float32)
    return graph.file({"audio": (audio, _axes(audio))}, metadata)


def _trace(model: Model, stated: Written, graph: Graph) -> tuple[Sequence[Step], int, dict[int, Wire]]:
    """The network's steps, the value that they end with, and its inputs as values of the graph."""
    trace = Trace({id(module): name for name, module in model.named_modules()})
    values = {name: trace.value() for name in stated.inputs}
    output = stated.network(trace, *values.values())
    wires = {
        values[name].index: graph.input(name, given.axes, torch.int64 if given.whole else torch.float32)
        for name, given in stated.inputs.items()
    }
    return trace.steps, output.index, wires


def write_steps(graph: Graph, steps: Sequence[Step], given: Mapping[int, Wire]) -> dict[int, Wire]:
    """All values of a network by their numbers, once its steps have written their nodes. Raises ExportError."""
    wires: dict[int, Wire] = dict(given)
    for step in steps:
        first, *more = (wires[index] if index else None for index in step.inputs)
        assert first is not None
        with graph.scope(step.name):
            if isinstance(step.does, Part):
                dtype = step.does.dtype
                x = first if dtype is None else first.to(wide(dtype))
                wires[step.output] = emit(step.does, x, *more)
            else:
                made: object = step.does(first, *more)  # torch's functions take wires
                assert isinstance(made, Wire)
                wires[step.output] = made
    return wires


def _axes(wire: Wire) -> list[int | str]:
    return [name if length is None else length for name, length in zip(_AXES, wire.shape, strict=True)]
