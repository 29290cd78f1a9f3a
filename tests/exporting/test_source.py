"""Exported sources: the phases of the reference in float64, also where a runtime has float32 alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from exported_files import Feeds, off_by, outputs, outputs_openvino
from torch import Tensor

pytest.importorskip("onnx", reason="onnx is not installed")

from fastvoc.exporting.graph import Graph
from fastvoc.exporting.source import nsf_source
from fastvoc.ops.nsf_source import KINDS, NsfSourceParams, nsf_source_ref

RUNTIMES: dict[str, Callable[[bytes], Callable[[Feeds], dict[str, Tensor]]]] = {
    "onnxruntime": outputs,
    "openvino": outputs_openvino,
}
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


def source(kind: str, hop: int, rate: int, rows: int = 9) -> NsfSourceParams:
    draw = torch.Generator().manual_seed(hop)
    weight = torch.randn(rows, generator=draw)
    return NsfSourceParams(weight, torch.zeros(1), rate, hop, kind, noise="none")  # type: ignore[arg-type]


def file_of(params: NsfSourceParams) -> bytes:
    graph = Graph({})
    f0 = graph.input("f0", ("batch", 1, "frames"), torch.float32)
    phase = graph.input("phase", ("batch", params.rows), torch.float32)
    return graph.file({"audio": (nsf_source(params, f0, None, phase, None, None), ("batch", 1, "samples"))}, {})


def contour(batch: int, frames: int) -> Tensor:
    """[B, 1, T] Hz: glides, whole numbers, silence, and values above half of a rate."""
    draw = torch.Generator().manual_seed(frames)
    f0 = 80 + 300 * torch.rand(batch, 1, frames, generator=draw)
    f0[:, :, ::7] = 220.0
    f0[:, :, 3::11] = 0.0
    f0[:, :, 5::13] = 30000.5
    return f0


def distance(params: NsfSourceParams, runtime: str, f0: Tensor) -> float:
    phase = torch.linspace(-3, 3, len(f0) * params.rows).reshape(len(f0), -1)
    made = RUNTIMES[runtime](file_of(params))({"f0": f0.numpy(), "phase": phase.numpy()})["audio"]
    weight, bias = params.weight.double(), params.bias.double()
    wide = NsfSourceParams(weight, bias, params.sample_rate, params.hop, params.kind, noise="none")
    return off_by(made, nsf_source_ref(f0.double(), wide, phase=phase.double()))


@each_runtime
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("hop", "rate"), [(300, 24000), (480, 48000), (7, 96000), (1025, 22050)])
def test_phases(kind: str, hop: int, rate: int, runtime: str) -> None:
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    for batch, frames in ((1, 1), (2, 40)):
        assert distance(source(kind, hop, rate), runtime, contour(batch, frames)) <= 3e-6


@each_runtime
@pytest.mark.parametrize("kind", KINDS)
def test_phases_do_not_drift(kind: str, runtime: str) -> None:
    """After a minute."""
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    assert distance(source(kind, 8, 8000, rows=3), runtime, contour(1, 80000)[:, :, :60000]) <= 3e-6
