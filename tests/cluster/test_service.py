"""The service behind Ray Serve: whole mels, streams, cancelled requests and refusals, by handle and by HTTP."""

from __future__ import annotations

import io
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastvoc
from fastvoc.vocoder import Vocoder

pytestmark = pytest.mark.filterwarnings("ignore")  # what Ray warns of is not ours


def mel(frames: int) -> np.ndarray[Any, Any]:
    return (2 * np.random.default_rng(frames).standard_normal((80, frames)) - 5).astype(np.float32)


@pytest.fixture(scope="module")
def port() -> int:
    """One that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def handle(cluster: Any, model: Path, port: int) -> Iterator[Any]:
    """One replica of two streams at most, at 8 kHz in mu-law."""
    from ray import serve

    from fastvoc.ray import Service

    app = Service.bind(str(model), rate=8000, format="mulaw", max_streams=2, max_frames=50000)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield serve.run(app, name="voice")
    serve.shutdown()


def streamed(voc: Vocoder, value: np.ndarray[Any, Any]) -> bytes:
    live = voc.stream(rate=8000, format="mulaw")
    return torch.cat([live.push(torch.from_numpy(value)), live.flush()]).numpy().tobytes()


def test_whole_mels_and_streams(handle: Any, voc: Vocoder) -> None:
    values = [mel(n) for n in (40, 25, 60)]
    waiting = [handle.vocode.remote(value) for value in values]
    for value, response in zip(values, waiting, strict=True):
        wav = response.result(timeout_s=120)
        assert np.array_equal(wav, voc(value, rate=8000, format="mulaw", check=False).numpy())
    pieces = list(handle.options(stream=True).stream.remote(values[2], chunk=10))
    assert len(pieces) > 3
    assert np.concatenate(pieces).tobytes() == streamed(voc, values[2])
    assert handle.facts.remote().result(timeout_s=120)["rate"] == 8000


def test_cancelled_requests_free_their_streams(handle: Any) -> None:
    streams = handle.options(stream=True).stream
    held = [streams.remote(mel(40000), chunk=5) for _ in range(2)]
    for one in held:
        next(iter(one))
    assert handle.stats.remote().result(timeout_s=120)["streams"] == 2
    with pytest.raises(fastvoc.StreamError, match="all 2 are open"):
        list(streams.remote(mel(5)))
    for one in held:
        one.cancel()
    deadline = time.monotonic() + 60
    while handle.stats.remote().result(timeout_s=120)["streams"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert handle.stats.remote().result(timeout_s=120)["streams"] == 0
    assert list(streams.remote(mel(5)))


def test_errors_keep_their_types(handle: Any) -> None:
    for value, error, message in (
        (np.zeros((9, 80), np.float32), fastvoc.ShapeError, "it is transposed"),
        (np.full((80, 9), np.nan, np.float32), fastvoc.ArgumentError, "mel: holds NaN or infinity"),
        (np.zeros((80, 9), np.int64), fastvoc.DtypeError, "mel: expected floating-point"),
        (np.zeros((80, 50001), np.float32), fastvoc.ShapeError, "expected at most 50000 frames, got 50001"),
    ):
        with pytest.raises(error, match=message):
            handle.vocode.remote(value).result(timeout_s=120)
        with pytest.raises(error, match=message):
            list(handle.options(stream=True).stream.remote(value))


def test_http(handle: Any, voc: Vocoder, port: int) -> None:
    value = mel(60)
    file = io.BytesIO()
    np.save(file, value)

    def ask(data: bytes | None, query: str = "") -> tuple[int, Any, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{query}", data)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    status, head, body = ask(file.getvalue(), "?chunk=10")
    assert (status, head["x-sample-rate"], head["x-format"]) == (200, "8000", "mulaw")
    assert body == streamed(voc, value)
    assert ask(file.getvalue(), "?whole=1")[2] == voc(value, rate=8000, format="mulaw", check=False).numpy().tobytes()
    assert json.loads(ask(None)[2])["n_mels"] == 80
    for data, query, code, error in (
        (b"no mel", "", 400, "DecodeError"),
        (file.getvalue(), "?chunk=0", 400, "ArgumentError"),
        (file.getvalue(), "?chunk=x", 400, "ArgumentError"),
        (bytes(80 * 50000 * 8 + 2000), "", 413, "ShapeError"),
    ):
        status, _, body = ask(data, query)
        assert (status, json.loads(body)["error"]) == (code, error)
