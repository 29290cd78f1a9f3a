"""`fastvoc stream`: sound or mel frames from standard input, speech to standard output, as it goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from fastvoc.cli.convert import Precision
from fastvoc.errors import ArgumentError, DecodeError, FastvocError, ShapeError
from fastvoc.runtime.values import are_wrong, wrong_values

if TYPE_CHECKING:
    from torch import Tensor

    from fastvoc.streams.stream import Stream
    from fastvoc.vocoder import Vocoder


class Kind(str, Enum):
    """What comes in."""

    s16 = "s16"
    s24 = "s24"
    s32 = "s32"
    f32 = "f32"
    mel = "mel"


class Out(str, Enum):
    """What goes out."""

    s16 = "s16"
    f32 = "f32"
    mulaw = "mulaw"
    alaw = "alaw"


def stream(
    model: Annotated[str, typer.Option(help="Name, file, folder or hub id of a vocoder.")] = "hifigan",
    kind: Annotated[
        Kind, typer.Option("--input", help="Raw samples, or mel: float32 frames. A WAV header is recognised.")
    ] = Kind.s16,
    input_rate: Annotated[
        int | None, typer.Option(min=1, help="Rate of raw samples in Hz; the model's by default.")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of raw samples; they are mixed to one.")] = 1,
    chunk: Annotated[int, typer.Option(min=1, help="Mel frames to gather before the model runs.")] = 5,
    lookahead: Annotated[
        int | None, typer.Option(min=0, help="Frames of look-ahead; fewer than exact: earlier, not exact.")
    ] = None,
    rate: Annotated[int | None, typer.Option(help="Rate of what goes out in Hz; the model's by default.")] = None,
    form: Annotated[Out, typer.Option("--format", help="Samples that go out; mulaw and alaw are G.711's.")] = Out.s16,
    dtype: Annotated[Precision, typer.Option(help="Type of weights and activations.")] = Precision.fp32,
    backend: Annotated[str | None, typer.Option(help="Force torch, cpp, triton or cuda; best by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Only print how late the sound is.")] = False,
) -> None:
    """Make speech from what comes in on standard input, while it comes; samples go to standard output, s16 by default.

    Example: arecord -f S16_LE -r 22050 | fastvoc stream | aplay -f S16_LE -r 22050

    Example: fastvoc stream --rate 8000 --format mulaw < speech.wav > call.ul

    Example: fastvoc stream --latency --model generator_v1
    """
    from fastvoc.loading import load
    from fastvoc.runtime.threads import set_num_threads
    from fastvoc.sound.formats import to_bytes
    from fastvoc.sound.pcm import write_now
    from fastvoc.vocoder import Vocoder

    if threads is not None:
        set_num_threads(threads)
    voc = load(model, dtype=dtype.value, backend=backend)
    if not isinstance(voc, Vocoder):
        raise ArgumentError(f"--model: {model} is no vocoder")
    out_rate = rate or voc.sample_rate
    live = voc.stream(lookahead=lookahead, rate=rate, format=form.value)
    _print_latency(voc, live, chunk, lookahead, kind)
    if latency:
        return
    made, busy, first = 0, 0.0, 0.0
    source = _Input(voc, kind, input_rate, channels)
    try:
        with live:
            for mel in _gathered(source.frames(), chunk):
                start = perf_counter()
                wav = live.push(mel)
                first = first or perf_counter() - start
                busy += perf_counter() - start
                made += len(wav)
                write_now(sys.stdout.buffer, to_bytes(wav))
            start = perf_counter()
            wav = live.flush()
            busy += perf_counter() - start
            made += len(wav)
            write_now(sys.stdout.buffer, to_bytes(wav))
    except ShapeError as short:  # too short an input, which may be so because it ends in an error
        raise source.error or short from None
    seconds = made / out_rate
    if (error := source.error) is not None:
        raise type(error)(f"{error}; the {seconds:.3f} s of speech before it were written")
    speed = seconds / busy if busy else 0.0
    typer.echo(
        f"{seconds:.2f} s of speech, {speed:.1f} times real time, first chunk in {1000 * first:.1f} ms", err=True
    )
    if clipped := int(live.clipped):
        typer.echo(f"{clipped} samples were clipped", err=True)


class _Input:
    """Standard input up to its end or to what is wrong in it, which `error` then tells: what came before is spoken."""

    def __init__(self, voc: Vocoder, kind: Kind, rate: int | None, channels: int) -> None:
        from fastvoc.sound.pcm import PcmFormat, PcmReader, read_frames

        self.error: FastvocError | None = None
        self._voc = voc
        self._mel = kind is Kind.mel
        if self._mel:
            self._chunks: Iterator[Tensor] = read_frames(sys.stdin.buffer, voc.n_mels)
            self._step, self._rate = "frame", voc.sample_rate / voc.hop
            return
        if voc.mel_config is None:
            raise ArgumentError("--input: the checkpoint does not say its mel front end; give --input mel")
        reader = PcmReader(sys.stdin.buffer, PcmFormat(kind.value, rate or voc.sample_rate, channels))
        self._chunks, self._step, self._rate = iter(reader), "sample", float(reader.format.rate)

    def frames(self) -> Iterator[Tensor]:
        """Mel frames [n_mels, n] as they come."""
        import torch

        from fastvoc.sound.mel import MelStream
        from fastvoc.sound.pcm import StreamResampler

        if self._mel:
            yield from self._good()
            return
        assert self._voc.mel_config is not None
        resampler = StreamResampler(int(self._rate), self._voc.sample_rate)
        front_end = MelStream(self._voc.mel_config)
        for samples in self._good():
            yield front_end.push(resampler.push(samples))
        yield front_end.push(resampler.push(torch.zeros(0, dtype=torch.float32, device="cpu"), last=True))
        yield front_end.flush()

    def _good(self) -> Iterator[Tensor]:
        given = 0
        try:
            for chunk in self._chunks:
                bad = are_wrong(chunk).reshape(-1, chunk.shape[-1]).any(0).nonzero()
                size = int(bad[0]) if len(bad) else chunk.shape[-1]
                given += size
                yield chunk[..., :size]
                if len(bad):
                    where = f"{self._step} {given} ({given / self._rate:.3f} s)"
                    self.error = ArgumentError(f"standard input: {wrong_values(chunk[..., size])} in {where}")
                    return
        except DecodeError as error:
            self.error = error


def _gathered(frames: Iterator[Tensor], chunk: int) -> Iterator[Tensor]:
    """The same frames, at least `chunk` at a time but for the last."""
    import torch

    held: list[Tensor] = []
    for mel in frames:
        held.append(mel)
        if sum(part.shape[1] for part in held) >= chunk:
            yield torch.cat(held, 1)
            held = []
    if any(part.shape[1] for part in held):
        yield torch.cat(held, 1)


def _print_latency(voc: Vocoder, live: Stream, chunk: int, lookahead: int | None, kind: Kind) -> None:
    exact = voc.latency
    frames = exact.frames if lookahead is None else lookahead
    frame_ms = 1000 * voc.hop / voc.sample_rate
    parts = [("the model's look-ahead", frames * frame_ms), (f"gathering {chunk} frames", chunk * frame_ms)]
    if kind is not Kind.mel and voc.mel_config is not None:
        ahead = voc.mel_config.n_fft - voc.mel_config.padding - voc.mel_config.hop_length
        parts.append(("the mel front end", 1000 * max(ahead, 0) / voc.sample_rate))
    if (resampling := live.latency.ms - frames * frame_ms) > 1e-6:
        parts.append(("the filter of the other rate", resampling))
    total = sum(ms for _, ms in parts)
    listed = " + ".join(f"{ms:.1f} ms {name}" for name, ms in parts)
    exactly = "" if frames == exact.frames else f" (exact output needs {exact.frames} frames, {exact.ms:.1f} ms)"
    typer.echo(f"latency {total:.1f} ms = {listed}{exactly}", err=True)
