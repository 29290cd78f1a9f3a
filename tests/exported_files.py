"""Exported files in onnxruntime and OpenVINO: random inputs, what the file makes of them, and what the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.codec import Codec
from fastvoc.loaded import LoadedModel

Feeds = dict[str, np.ndarray[Any, Any]]


def outputs(data: bytes) -> Callable[[Feeds], dict[str, Tensor]]:
    """What runs a file on one thread: inputs by name -> outputs by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: {name: torch.from_numpy(y) for name, y in zip(names, session.run(names, feeds), strict=True)}


def outputs_openvino(data: bytes) -> Callable[[Feeds], dict[str, Tensor]]:
    """The same in OpenVINO, whose float64 is float32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.compile_model(core.read_model(data), "CPU", options)

    def run(feeds: Feeds) -> dict[str, Tensor]:
        made = model(feeds)
        return {output.any_name: torch.from_numpy(made[output]) for output in model.outputs}

    return run


def feeds_of(loaded: LoadedModel, inputs: Sequence[str], batch: int, frames: int) -> Feeds:
    """Random values for every input of a model's file."""
    draw = torch.Generator().manual_seed(100 * batch + frames)
    lengths = {"batch": batch, "frames": frames, "samples": frames * loaded.hop, "codebooks": 3}
    lengths |= {"steps": 2 * frames, "spectra": frames * loaded.hop // getattr(loaded.config, "istft_hop", 1) + 1}
    lengths |= {f"steps_{i}": n * frames for i, n in enumerate(getattr(loaded.config, "noise_steps", ()))}
    found: Feeds = {}
    for name, given in loaded.model.written(inputs).inputs.items():
        shape = [axis if isinstance(axis, int) else lengths[axis] for axis in given.axes]
        value = torch.randn(shape, generator=draw)
        if name == "f0":
            value = 100 + 100 * torch.rand(shape, generator=draw)
            value[:, frames // 3 : frames // 2] = 0.0
        elif name == "scale":
            value = 0.5 + torch.rand(shape, generator=draw)
        elif given.whole:
            most = {"codes": getattr(loaded.config, "bins", 16), "speaker": 3, "bandwidth_id": 2}[name]
            value = torch.randint(0, most, shape, generator=draw)
        found[name] = value.numpy()
    return found


def reference(loaded: LoadedModel, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensor:
    """What the model itself makes of them in torch, [batch, channels, samples]."""
    values = {name: torch.from_numpy(value) for name, value in feeds.items()}
    with torch.no_grad():
        if isinstance(loaded, Codec):
            given = [values[name] for name in values if name.startswith("noise_")]
            more: dict[str, Any] = {"noise": given} if given else {}
            return loaded.model.decode_segment(values["codes"], values.get("scale"), None, "torch", **more)
        first = values.pop(next(iter(feeds)))
        call = loaded.model if first.is_floating_point() else loaded.model.decode_codes
        made: Tensor = call(first, None, backend="torch", **values)
    return made


def off_by(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference over the root mean square."""
    wide = theirs.double()
    return float((ours.double() - wide).abs().max() / wide.square().mean().sqrt())
