"""A voice whose flow runs by parts: the samples of the whole file, the first before the rest is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import VITS_1
from onnx_files import need_onnx, run_onnx, write_voice
from torch import Tensor, nn

from fastvoc import piper
from fastvoc.checkpoints.onnx_decoder import find_decoder
from fastvoc.checkpoints.onnx_graph import read_graph
from fastvoc.piper import flow as flow_module
from fastvoc.piper.flow import LEAD, find_flow

need_onnx("onnxruntime")

ALONE = replace(VITS_1, gin_channels=0, num_speakers=0)
QUIET: dict[str, Any] = {"noise_scale": 0, "noise_w": 0.0}
IDS = [1, *[n % 9 + 3 for n in range(60)], 2]  # 124 frames


class Near(nn.Module):
    """Convolutions along time, as a flow has them."""

    def __init__(self) -> None:
        super().__init__()
        c = ALONE.num_mels
        self.convs = nn.ModuleList(nn.Conv1d(c, c, 5, padding=2 * d, dilation=d) for d in (1, 2))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + torch.tanh(conv(x)).flip(1)
        return x


class Far(Near):
    """The same with a mean over all of time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x.mean(2, keepdim=True)


def place(file: Path) -> Any:
    graph = read_graph(file)
    return find_flow(graph, find_decoder(graph).input)


def whole(file: Path) -> Tensor:
    scales = np.array([0, 1.25, 0], np.float32)
    return run_onnx(file, input=np.array([IDS]), input_lengths=np.array([len(IDS)]), scales=scales).flatten()


@pytest.mark.native
def test_parts_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_voice(tmp_path, ALONE, flow=Near())
    assert place(file).reach == (6, 6)
    voice = piper.load(file, backend="cpp")
    exact = voice(IDS, exact=True, **QUIET)
    meant = whole(file)
    assert (exact - meant).abs().max() <= 5e-6 * meant.square().mean().sqrt()
    ran: list[int] = []
    parts = flow_module.Flow.parts

    def counted(self: Any, given: Any) -> Any:
        for part in parts(self, given):
            ran.append(part.shape[2])
            yield part

    monkeypatch.setattr(flow_module.Flow, "parts", counted)
    for chunk in (1, 8, 50, 1000):
        ran.clear()
        pieces = voice.stream(IDS, chunk_frames=chunk, **QUIET)
        first = next(pieces)
        early = chunk + voice.vocoder.latency.frames < LEAD
        assert ran == ([LEAD] if early else [LEAD, 2 * len(IDS) - LEAD])
        assert torch.equal(torch.cat([first, *pieces]), exact)
    short = IDS[:10]
    ran.clear()
    voice(short, **QUIET)
    assert ran == [20]


def test_what_looks_far_runs_as_one(tmp_path: Path) -> None:
    file = write_voice(tmp_path, ALONE, flow=Far())
    voice = piper.load(file)
    meant = whole(file)
    assert (voice(IDS, exact=True, **QUIET) - meant).abs().max() <= 5e-6 * meant.square().mean().sqrt()


def test_a_front_without_convolutions_has_no_flow(tmp_path: Path) -> None:
    assert place(write_voice(tmp_path, ALONE)) is None
