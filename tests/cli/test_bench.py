"""`fastvoc bench`: the figures of a small model, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from codec_models import MONO, STEREO, lively
from command_line import Run

from fastvoc.bench.benchmark import measure
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.vocoder import Vocoder


def test_json(run: Run, model: Path) -> None:
    sizes = ("--seconds", "0.1,0.5", "--batch", "1,3")
    result = run("bench", model, *sizes, "--budget", 0, "--compare", "torch", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [(call["batch"], round(call["seconds"], 1)) for call in found["calls"]] == [
        (1, 0.1),
        (1, 0.5),
        (3, 0.1),
        (3, 0.5),
    ]
    for call in found["calls"]:
        assert 0 < call["median_s"] <= call["p95_s"] < 60
        assert call["rounds"] >= 3
        assert call["real_time"] == pytest.approx(call["batch"] * call["seconds"] / call["median_s"])
        assert call["speedup"] > 0
    [stream] = found["streams"]
    assert stream["chunk_ms"] == pytest.approx(5 * 256000 / 22050)
    assert stream["first_s"] > 0
    assert found["peak_mb"] > found["weights_mb"] > 0
    assert sum(sum(ops.values()) for ops in found["layers"].values()) == 6


def test_table(run: Run, model: Path) -> None:
    threads = torch.get_num_threads()
    result = run("bench", model, "--seconds", 0.1, "--budget", 0, "--backend", "torch", "--threads", threads)
    assert result.code == 0, result.err
    for text in ("HifiGan", "real time", "stream by chunks of 5 frames", "torch: conv1d x 2", "memory:"):
        assert text in result.out


@pytest.mark.parametrize(
    "arguments",
    [("--seconds", "0"), ("--seconds", "a"), ("--batch", "1.5"), ("--compare", "openvino"), ("--bandwidth", "6")],
)
def test_wrong_arguments(run: Run, model: Path, arguments: tuple[str, str]) -> None:
    result = run("bench", model, *arguments)
    assert result.code == 2
    assert arguments[0].removeprefix("--") in result.err


def test_the_backend_of_a_call_is_measured(voc: Vocoder) -> None:
    seen: list[str | None] = []
    inner = voc.model.forward
    voc.model.forward = lambda *args, **more: (seen.append(more["backend"]), inner(*args, **more))[1]
    try:
        report = measure(voc, [0.1], budget=0)
    finally:
        del voc.model.forward
    assert len(seen) >= 4
    assert report.calls[0].torch_s is None


def test_codecs() -> None:
    mono = Codec(lively(MONO), MONO)
    report = measure(mono, [0.05], [2], bandwidth=3.6, budget=0)
    assert [call.name for call in report.calls] == ["encode", "decode"]
    assert [stream.name for stream in report.streams] == ["encoding stream", "decoding stream"]
    stereo = measure(Codec(lively(STEREO), STEREO), [0.05], budget=0)
    assert stereo.streams == ()
    with pytest.raises(ArgumentError, match="bandwidth"):
        measure(mono, [0.05], bandwidth=7.0)
