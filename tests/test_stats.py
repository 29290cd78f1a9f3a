"""What a loaded model counts, who is told, and how a service reads it."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import re
import threading
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from stream_families import mel_of, vocoder

import fastvoc
from fastvoc import metrics
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, BackendError, DtypeError, ShapeError, StreamError
from fastvoc.runtime.stats import Event, Stats
from fastvoc.vocoder import Vocoder


@pytest.fixture
def voc() -> Vocoder:
    shared = vocoder("hifigan-1", "torch")
    return Vocoder(shared.model, shared.config, backend="torch")


def test_calls_are_counted(voc: Vocoder) -> None:
    voc(mel_of(voc, 9))
    voc(torch.stack([mel_of(voc, 9)] * 2), [4, 9])
    voc.each([mel_of(voc, 5), mel_of(voc, 3)])
    found = voc.stats.to_dict()
    assert (found["calls"], found["frames"]) == (3, 9 + 13 + 8)
    assert found["seconds"] == pytest.approx(30 * voc.hop / voc.sample_rate)
    assert (found["running"], found["most_running"], found["refused"]) == (0, 1, {})
    assert list(found["stages"]) == ["check", "model", "output"]
    assert min(found["stages"].values()) > 0
    assert "3 calls, 30 frames" in repr(voc.stats)
    voc.stats.reset()
    assert voc.stats.to_dict()["calls"] == voc.stats.to_dict()["frames"] == 0
    assert not any(voc.stats.stages.values())


def test_what_is_refused_is_counted(voc: Vocoder) -> None:
    mel = mel_of(voc, 9)
    for wrong, error in (
        (lambda: voc(mel[:-1]), ShapeError),
        (lambda: voc(mel * torch.nan), ArgumentError),
        (lambda: voc(mel.long()), DtypeError),
        (lambda: voc(mel, rate=3), ArgumentError),
        (lambda: voc.stream().push(mel[:-1]), ShapeError),
        (lambda: fastvoc.Streams(voc).step({"a": mel[:-1]}), ShapeError),
    ):
        with pytest.raises(error):
            wrong()
    assert voc.stats.refused == {"ShapeError": 3, "ArgumentError": 2, "DtypeError": 1}
    assert (voc.stats.calls, voc.stats.running) == (0, 0)


def test_streams_are_counted(voc: Vocoder) -> None:
    mel = mel_of(voc, 20)
    with voc.stream() as live:
        live.push(mel[:, :12])
        live.push(mel[:, 12:])
        live.flush()
    assert (voc.stats.calls, voc.stats.frames) == (3, 20)
    streams, others = fastvoc.Streams(voc), fastvoc.Streams(voc)
    streams.step({"a": mel, "b": mel[:, :7]})
    others.step({"a": mel})
    assert (voc.stats.calls, voc.stats.frames, voc.stats.streams) == (5, 67, 3)
    streams.close("a", mel[:, :3])
    streams.drop("b")
    assert (voc.stats.calls, voc.stats.frames, voc.stats.streams) == (6, 70, 1)
    del others
    assert voc.stats.streams == 0


def test_codecs_are_counted() -> None:
    codec = Codec(lively(MONO), MONO)
    wav = torch.randn(10 * codec.hop) * 0.1
    codes = codec.encode(wav, codec.bandwidths[0])
    codec.decode(codes)
    assert (codec.stats.calls, codec.stats.frames) == (2, 20)
    with pytest.raises(ArgumentError):
        codec.encode(wav, 1e9)
    with pytest.raises(ArgumentError):
        codec.decode(codes.segments[0] + 99999)
    assert codec.stats.refused == {"ArgumentError": 2}
    live = codec.encoding(codec.bandwidths[0]).stream()
    made = live.push(wav).shape[-1] + live.flush().shape[-1]
    assert (codec.stats.calls, codec.stats.frames) == (4, 20 + made)


def test_clipped_samples_are_counted(voc: Vocoder) -> None:
    loud = Stats(1.0)
    for count in (3, torch.tensor(4), *[torch.tensor(1)] * 100):
        loud.begin()
        loud.made("call", 0.0, 0.0, 0.0, 1, count)
    assert loud.clipped == 107
    assert loud.to_dict()["clipped"] == 107
    voc(mel_of(voc, 9), format="s16")
    assert voc.stats.clipped == 0


def test_threads_lose_nothing(voc: Vocoder) -> None:
    mel = mel_of(voc, 2)
    workers = [threading.Thread(target=lambda: [voc(mel, check=False) for _ in range(20)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (voc.stats.calls, voc.stats.frames, voc.stats.running) == (80, 160, 0)
    assert 1 <= voc.stats.most_running <= 4


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent() -> None:
    stats = Stats(1.0)
    stats.begin()
    with stats.lock:
        child = os.fork()
        if not child:
            free = stats.lock.acquire(timeout=5)
            os._exit(0 if free and stats.running == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert stats.running == 1


def test_copies_count_for_themselves(voc: Vocoder) -> None:
    voc(mel_of(voc, 3))
    for again in (copy.deepcopy(voc), pickle.loads(pickle.dumps(voc))):
        assert again.stats.calls == 0
        again(mel_of(voc, 4))
        assert (again.stats.calls, again.stats.frames) == (1, 4)
        assert again.stats.seconds == pytest.approx(4 * voc.hop / voc.sample_rate)
    assert voc.stats.calls == 1


def test_listeners_are_told(voc: Vocoder) -> None:
    told: list[Event] = []
    voc.stats.listeners.append(told.append)
    voc(mel_of(voc, 9), rate=8000, format="s16")
    voc.stream().push(mel_of(voc, 5))
    with pytest.raises(ShapeError):
        voc(torch.zeros(3))
    assert [(event.kind, event.frames) for event in told] == [("call", 9), ("stream", 5), ("call", 0)]
    assert [name for name, _ in told[0].stages] == ["check", "model", "output"]
    assert told[0].seconds == pytest.approx(9 * voc.hop / voc.sample_rate)
    assert isinstance(told[2].error, ShapeError)


def test_a_listener_that_raises_costs_no_sound(voc: Vocoder, caplog: pytest.LogCaptureFixture) -> None:
    mel = mel_of(voc, 9)
    whole = voc(mel)

    def broken(event: Event) -> None:
        raise OSError(f"no room for {event.kind}")

    told: list[Event] = []
    voc.stats.listeners += [broken, told.append]
    with caplog.at_level(logging.ERROR, "fastvoc"):
        assert torch.equal(voc(mel), whole)
        live = voc.stream()
        live.push(mel)
        live.flush()
        streams = fastvoc.Streams(voc)
        streams.step({"a": mel})
        assert len(streams.close("a"))
        assert "a" not in streams
        with pytest.raises(ShapeError):
            voc(torch.zeros(3))
    assert [event.kind for event in told] == ["call", "stream", "stream", "streams", "streams", "call"]
    assert [record.exc_info is not None for record in caplog.records] == [True] * 6
    assert voc.stats.running == 0


def test_frames_of_ragged_batches_are_the_items_own() -> None:
    codec = Codec(lively(MONO), MONO)
    hop = codec.hop
    codec.encode(torch.randn(2, 1, 10 * hop) * 0.1, codec.bandwidths[0], [hop, 10 * hop])
    assert codec.stats.frames == 11


_LINE = re.compile(r'^([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\} (\S+)$')


def test_prometheus(voc: Vocoder) -> None:
    voc(mel_of(voc, 9))
    with pytest.raises(ShapeError):
        voc(torch.zeros(3))
    odd = 'a "quoted" \\ name\n'
    text = metrics.prometheus({"hifigan": voc, odd: voc})
    assert text.endswith("\n")
    values: dict[tuple[str, str], float] = {}
    types: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in types, "one family, one block"
            types[name] = kind
        elif not line.startswith("# HELP "):
            found = _LINE.match(line)
            assert found, line
            assert found[1] in types
            values[found[1], found[2]] = float(found[3])
    assert values["fastvoc_calls_total", 'model="hifigan"'] == 1
    assert values["fastvoc_frames_total", 'model="hifigan"'] == 9
    assert values["fastvoc_refused_total", 'model="hifigan",error="ShapeError"'] == 1
    assert values["fastvoc_stage_seconds_total", 'model="hifigan",stage="model"'] > 0
    assert values["fastvoc_calls_total", r'model="a \"quoted\" \\ name\n"'] == 1
    assert set(types.values()) == {"counter", "gauge"}
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in types.items())


class Recorded:
    """A tracer and its spans, with what OpenTelemetry's have."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def start_span(self, name: str, *, start_time: int | None = None) -> RecordedSpan:
        self.spans.append({"name": name, "start": start_time})
        return RecordedSpan(self.spans[-1])


class RecordedSpan:
    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def set_attribute(self, key: str, value: str | float) -> None:
        self._values[key] = value

    def record_exception(self, exception: BaseException) -> None:
        self._values["exception"] = exception

    def end(self, end_time: int | None = None) -> None:
        self._values["end"] = end_time


def test_spans(voc: Vocoder) -> None:
    tracer = Recorded()
    stop = metrics.trace(voc, tracer)
    voc(mel_of(voc, 9))
    with pytest.raises(ShapeError):
        voc(torch.zeros(3))
    stop()
    stop()
    voc(mel_of(voc, 9))
    made, refused = tracer.spans
    assert made["name"] == refused["name"] == "fastvoc.call"
    assert made["fastvoc.frames"] == 9
    parts = [made[f"fastvoc.{stage}_seconds"] for stage in ("check", "model", "output")]
    assert made["end"] - made["start"] == pytest.approx(1e9 * sum(parts), abs=1000)
    assert made["end"] <= refused["start"] + 1e6
    assert refused["error.type"] == "ShapeError"
    assert isinstance(refused["exception"], ShapeError)
    with pytest.raises(ArgumentError, match="tracer"):
        metrics.trace(voc, object())  # type: ignore[arg-type]


def test_spans_of_opentelemetry(voc: Vocoder) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    simple = pytest.importorskip("opentelemetry.sdk.trace.export")
    exporter, provider = export.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(simple.SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    metrics.trace(voc, tracer)
    with tracer.start_as_current_span("request"):
        voc(mel_of(voc, 9))
    child, parent = exporter.get_finished_spans()
    assert child.name == "fastvoc.call"
    assert child.parent.span_id == parent.context.span_id
    assert child.attributes["fastvoc.frames"] == 9
    assert parent.start_time <= child.start_time + 1_000_000
    assert child.start_time < child.end_time <= parent.end_time


def test_without_opentelemetry_it_says_so(voc: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(BackendError, match="opentelemetry-api is not installed"):
        metrics.trace(voc)


def test_logging(voc: Vocoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "fastvoc"):
        fastvoc.load("hifigan")
        with pytest.raises(ShapeError):
            voc(torch.zeros(3))
    loaded, refused = caplog.records
    assert (loaded.name, loaded.levelno) == ("fastvoc", logging.INFO)
    assert "loaded hifigan: Vocoder(HifiGan, 22050 Hz" in loaded.getMessage()
    assert (refused.name, refused.levelno) == ("fastvoc", logging.DEBUG)
    assert "call refused: ShapeError: mel: expected" in refused.getMessage()


def test_an_ended_stream_is_refused(voc: Vocoder) -> None:
    live = voc.stream()
    live.close()
    with pytest.raises(StreamError):
        live.push(mel_of(voc, 3))
    assert voc.stats.refused == {"StreamError": 1}
