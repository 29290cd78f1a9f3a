"""What a replica of the service does: whole mels in batches, live sound in pieces, by handle and by HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fastvoc.errors import ArgumentError, FastvocError, ShapeError, StreamError
from fastvoc.loading import load_vocoder
from fastvoc.nn.model import Input
from fastvoc.ray.engine import Engine
from fastvoc.ray.npy import read_npy
from fastvoc.runtime.threads import set_num_threads
from fastvoc.sound.formats import Format, to_bytes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Samples = np.ndarray[Any, Any]


class Replica:
    """One replica of `fastvoc.ray.Service`, with a model of its own on the CPUs and the GPU that Ray gave it.

    model, dtype, backend: as `fastvoc.load`. rate, format: of all samples, as in a call of a
    vocoder. frames: the most of a batch, or of a step of all streams. max_streams: of a replica; one more raises
    StreamError. max_frames: the longest mel that is taken.
    """

    def __init__(
        self,
        model: str = "hifigan",
        *,
        dtype: str | None = None,
        backend: str | None = None,
        rate: int | None = None,
        format: Format = "s16",
        frames: int = 4000,
        max_streams: int = 256,
        max_frames: int = 60000,
    ) -> None:
        import ray

        given = ray.get_runtime_context().get_assigned_resources()
        set_num_threads(max(1, int(given.get("CPU", 1))))
        device = "cuda" if given.get("GPU") else "cpu"
        self.voc = load_vocoder(model, device=device, dtype=dtype, backend=backend).warmup()
        self.most = max_frames
        self.options: dict[str, Any] = {"frames": frames, "max_streams": max_streams, "rate": rate, "format": format}
        self.engine = Engine(self.voc, **self.options)

    async def vocode(self, mel: Samples, **inputs: Input) -> Samples:
        """The waveform [S] of a mel [n_mels, T], in a batch with others that wait; `inputs` as in a call, alone.

        Raises, at the caller, what such a call raises.
        """
        return _numpy(await self.engine.vocode(self._fit(mel), **inputs))

    async def stream(self, mel: Samples, chunk: int = 25, **options: Input) -> AsyncIterator[Samples]:
        """Pieces of the waveform, each as soon as it is made of `chunk` more frames; options as of `voc.stream`.

        Cancelling, or no longer reading, frees the stream. Raises, at the caller, what a stream raises, and StreamError
        when all places are taken.
        """
        pieces = self.engine.stream(self._fit(mel), chunk=chunk, **options)
        try:
            async for piece in pieces:
                yield _numpy(piece)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    async def facts(self) -> dict[str, object]:
        """What a caller has to know of the model and its samples."""
        return {
            "n_mels": self.voc.n_mels,
            "hop": self.voc.hop,
            "model_rate": self.voc.sample_rate,
            "rate": self.engine.rate,
            "format": self.engine.format,
            "max_frames": self.most,
        }

    async def stats(self) -> dict[str, object]:
        """`voc.stats` of the replica that answers."""
        return self.voc.stats.to_dict()

    async def __call__(self, request: Request) -> Response:
        """HTTP: a mel as .npy in, raw little-endian samples out in pieces as they are made; GET tells the facts.

        Query: `chunk`, frames a piece; `whole=1` for one answer out of a batch. A refusal is JSON with the `error`'s
        name and `message`: 400, 413 for a mel that is too long, 503 when all streams are taken.
        """
        from starlette.responses import JSONResponse, StreamingResponse
        from starlette.responses import Response as Whole

        if request.method == "GET":
            return JSONResponse(await self.facts())
        head = {"x-sample-rate": str(self.engine.rate), "x-format": self.engine.format}
        try:
            mel = read_npy(await _body(request, self.voc.n_mels * self.most * 8 + 1024))
            if request.query_params.get("whole", "0") not in ("", "0"):
                wav = await self.engine.vocode(self._fit(mel))
                return Whole(to_bytes(wav), headers=head, media_type="application/octet-stream")
            pieces = self.engine.stream(self._fit(mel), chunk=_chunk(request.query_params.get("chunk", "25")))
            first = await anext(pieces, None)
        except _TooLong as error:
            return JSONResponse({"error": "ShapeError", "message": str(error)}, 413)
        except FastvocError as error:
            status = 503 if isinstance(error, StreamError) else 400
            return JSONResponse({"error": type(error).__name__, "message": str(error)}, status)

        async def parts() -> AsyncIterator[bytes]:
            try:
                if first is not None:
                    yield to_bytes(first)
                async for piece in pieces:
                    yield to_bytes(piece)
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]

        return StreamingResponse(parts(), headers=head, media_type="application/octet-stream")

    def _fit(self, mel: Samples) -> Samples:
        """Raises ShapeError for a mel that is too long."""
        if isinstance(mel, np.ndarray) and mel.ndim == 2 and mel.shape[1] > self.most:
            raise ShapeError(f"mel: expected at most {self.most} frames, got {mel.shape[1]}")
        return mel


class _TooLong(ShapeError):
    """A request's body is longer than that of any mel that is taken."""


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, of which no more than that is kept."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise _TooLong(f"mel: expected at most {most} bytes")
    return bytes(found)


def _chunk(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ArgumentError(f"chunk: expected a number of frames, got {text[:20]!r}")
    return int(text)


def _numpy(wav: Tensor) -> Samples:
    found: Samples = wav.cpu().numpy()
    return found
