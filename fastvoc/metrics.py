"""What watches a service: Prometheus's text of `Stats`, OpenTelemetry spans of calls. Neither package is needed for it.

```
text = metrics.prometheus({"hifigan": voc})   # what a handler of /metrics answers
stop = metrics.trace(voc)                     # a span a call, where opentelemetry-api is installed; stop() ends it
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from fastvoc.errors import ArgumentError, BackendError
from fastvoc.runtime.stats import Event, Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Name, kind, what it counts, key of `Stats.to_dict`, the label of its parts.
_METRICS = (
    ("fastvoc_calls_total", "counter", "Calls and chunks of streams that were made.", "calls", None),
    ("fastvoc_frames_total", "counter", "Frames of all their items.", "frames", None),
    ("fastvoc_audio_seconds_total", "counter", "Seconds of audio.", "seconds", None),
    ("fastvoc_stage_seconds_total", "counter", "Seconds of the host by stage.", "stages", "stage"),
    ("fastvoc_clipped_samples_total", "counter", "Samples beyond full scale.", "clipped", None),
    ("fastvoc_refused_total", "counter", "Calls and chunks that raised.", "refused", "error"),
    ("fastvoc_running", "gauge", "Calls and chunks at work now.", "running", None),
    ("fastvoc_running_most", "gauge", "The most that were at work at once.", "most_running", None),
    ("fastvoc_streams", "gauge", "Live streams open.", "streams", None),
)


class Watched(Protocol):
    """What `fastvoc.load` returns, as far as this module needs it."""

    @property
    def stats(self) -> Stats: ...


class Span(Protocol):
    """The part of OpenTelemetry's Span that is used."""

    def set_attribute(self, key: str, value: str | float) -> None: ...
    def record_exception(self, exception: BaseException) -> None: ...
    def end(self, end_time: int | None = None) -> None: ...


class Tracer(Protocol):
    """The part of OpenTelemetry's Tracer that is used."""

    def start_span(self, name: str, *, start_time: int | None = None) -> Span: ...


def prometheus(models: Mapping[str, Watched]) -> str:
    """The counters of models, by the label `model`, in Prometheus's text format 0.0.4 (`CONTENT_TYPE`)."""
    found = {name: watched.stats.to_dict() for name, watched in models.items()}
    lines = []
    for name, kind, text, key, label in _METRICS:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for model, values in found.items():
            own = f'model="{_escaped(model)}"'
            parts = (
                {f'{own},{label}="{_escaped(p)}"': v for p, v in values[key].items()} if label else {own: values[key]}
            )
            lines += [f"{name}{{{labels}}} {count!r}" for labels, count in parts.items()]
    return "\n".join(lines) + "\n"


def trace(model: Watched, tracer: Tracer | None = None) -> Callable[[], None]:
    """Makes an OpenTelemetry span of every call and chunk of a model, until what it returns is called.

    A span is `fastvoc.call` (decode, encode, stream, streams), lasts as long as the call, hangs on the current one of
    its thread, and has the attributes fastvoc.frames, fastvoc.audio_seconds, fastvoc.clipped, fastvoc.check_seconds,
    fastvoc.model_seconds and fastvoc.output_seconds, or the error.
    tracer: that of the global provider when None. Raises BackendError when there is no opentelemetry-api for that.
    """
    if tracer is None:
        tracer = _global_tracer()
    elif not hasattr(tracer, "start_span"):
        raise ArgumentError(f"tracer: expected one of OpenTelemetry, got {type(tracer).__name__}")
    chosen = tracer

    def listen(event: Event) -> None:
        spent = sum(seconds for _, seconds in event.stages)
        begun = time.time_ns() - int(1e9 * (time.perf_counter() - event.start))
        span = chosen.start_span(f"fastvoc.{event.kind}", start_time=begun)
        for name, seconds in event.stages:
            span.set_attribute(f"fastvoc.{name}_seconds", seconds)
        span.set_attribute("fastvoc.frames", event.frames)
        span.set_attribute("fastvoc.audio_seconds", event.seconds)
        span.set_attribute("fastvoc.clipped", event.clipped)
        if event.error is not None:
            span.set_attribute("error.type", type(event.error).__name__)
            span.record_exception(event.error)
        span.end(end_time=begun + int(1e9 * spent))

    model.stats.listeners.append(listen)

    def stop() -> None:
        if listen in model.stats.listeners:
            model.stats.listeners.remove(listen)

    return stop


def _global_tracer() -> Tracer:
    try:
        from opentelemetry import trace as api
    except ImportError as error:
        raise BackendError(f"trace: opentelemetry-api is not installed ({error})") from None
    found: Tracer = api.get_tracer("fastvoc")
    return found


def _escaped(text: str) -> str:
    """A label's value as the format wants it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
