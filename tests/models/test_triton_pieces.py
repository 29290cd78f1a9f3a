"""Long clips on a GPU run in pieces, by Triton's kernels: the samples of one call, bit for bit, memory that of a piece.

The tensors are those of the CPU, said to be on a GPU, and the kernels run in Triton's interpreter.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stream_families import MAKERS
from triton_cases import places_alike

from fastvoc.nn import pieces
from fastvoc.nn.network import Network
from fastvoc.nn.pieces import Pieces
from fastvoc.runtime.lengths import LengthPlan
from fastvoc.vocoder import Vocoder
from helpers import need_triton

FRAMES = 260


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    need_triton()
    monkeypatch.setattr(pieces, "_kind", lambda _: "cuda")


class Calls:
    """Items times frames of every call of a network; `bytes` as much as a piece may have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self.frames: list[int] = []
        inner = Network.__call__

        def call(network: Network, *values: Any, **options: Any) -> Any:
            self.frames.append(values[0].shape[0] * values[0].shape[2] // network.per_frame[0])
            return inner(network, *values, **options)

        monkeypatch.setattr(Network, "__call__", call)
        monkeypatch.setattr(pieces, "GPU_PIECE_BYTES", size)


def made(voc: Vocoder, mel: torch.Tensor, lengths: Any) -> torch.Tensor:
    for module in voc.model.modules():
        module.__dict__.pop("_networks", None)  # forgets how its networks are cut
    return voc(mel, lengths, check=False)


@pytest.mark.parametrize(
    ("family", "lengths"), [("hifigan-1", (FRAMES, 97)), ("vocos-same", None), ("hift-sample", None)]
)
def test_pieces_equal_the_whole(family: str, lengths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    voc = MAKERS[family]()
    voc.backend = "triton"
    mel = torch.randn(1 if lengths is None else len(lengths), voc.n_mels, FRAMES)
    with torch.inference_mode(), places_alike():
        whole = made(voc, mel, lengths)
        calls = Calls(monkeypatch, 1)
        cut = made(voc, mel, lengths)
    assert torch.equal(cut, whole)
    assert len(calls.frames) >= 3
    assert max(calls.frames) < FRAMES * len(mel)


def test_a_gpus_pieces_are_larger_than_those_of_the_cpu() -> None:
    network = MAKERS["hifigan-1"]().model.reading()
    there, here = (Pieces.of(network, device) for device in ("cuda", "cpu"))
    assert there.frames == pieces.GPU_PIECE_BYTES // (4 * network.widest)
    assert there.frames > here.frames
    assert (there.before, there.after, there.grain, there.hop) == (here.before, here.after, here.grain, here.hop)


def test_what_a_graph_records_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 6, 4)
    with torch.inference_mode():
        assert pieces.cuttable(x, None)
        assert not pieces.cuttable(x, "torch")
        with LengthPlan(1, 1, 4, torch.device("cpu")).running():
            assert not pieces.cuttable(x, None)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert not pieces.cuttable(x, None)
        monkeypatch.setattr(pieces, "_kind", lambda _: "cpu")
        assert pieces.cuttable(x, None)
    assert not pieces.cuttable(x, None)
