"""Requests of many callers through one vocoder: batches, streams, cancelling; without a cluster."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from fastvoc.errors import ArgumentError, DecodeError, DtypeError, ShapeError, StreamError
from fastvoc.ray.engine import Engine
from fastvoc.ray.npy import read_npy
from fastvoc.vocoder import Vocoder


def mel(frames: int) -> torch.Tensor:
    return torch.randn(80, frames, generator=torch.Generator().manual_seed(frames)) * 2 - 5


def served(voc: Vocoder, use: Callable[[Engine], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        engine = Engine(voc, **options)
        try:
            await asyncio.wait_for(use(engine), 60)
        finally:
            await engine.close()

    asyncio.run(run())


async def heard(pieces: AsyncIterator[torch.Tensor]) -> torch.Tensor:
    return torch.cat([piece async for piece in pieces])


async def freed(engine: Engine) -> None:
    """Waits until no stream is open."""
    while len(engine) or len(engine.streams):
        await asyncio.sleep(0.01)


def test_whole_mels_come_in_batches(voc: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    mels = [mel(n) for n in (5, 30, 9, 31, 30, 8)]
    sizes: list[int] = []
    whole = Vocoder.each

    def each(self: Vocoder, items: Any, **more: Any) -> Any:
        sizes.append(len(items))
        return whole(self, items, **more)

    monkeypatch.setattr(Vocoder, "each", each)

    async def use(engine: Engine) -> None:
        wavs = await asyncio.gather(*(engine.vocode(one) for one in mels))
        for one, wav in zip(mels, wavs, strict=True):
            assert torch.equal(wav, voc(one, check=False))

    served(voc, use, frames=100)
    assert sizes == [3, 3]


@pytest.mark.parametrize("options", [{}, {"rate": 8000, "format": "mulaw"}, {"format": "s16"}])
def test_streams_run_together(voc: Vocoder, options: dict[str, Any]) -> None:
    mels = [mel(n) for n in (40, 61, 20, 1)]
    most = 0

    async def use(engine: Engine) -> None:
        nonlocal most
        step = engine.streams.step

        def counted(chunks: Any) -> Any:
            nonlocal most
            most = max(most, len(chunks))
            return step(chunks)

        engine.streams.step = counted  # type: ignore[method-assign, assignment]
        wavs = await asyncio.gather(*(heard(engine.stream(one, chunk=9)) for one in mels))
        for one, wav in zip(mels, wavs, strict=True):
            alone = voc.stream(**options)
            parts = [alone.push(part) for part in one.split(9, 1)]
            assert torch.equal(wav, torch.cat([*parts, alone.flush()]))
        await freed(engine)

    served(voc, use, **options)
    assert most == 4


def test_a_cancelled_request_frees_its_stream(voc: Vocoder) -> None:
    async def use(engine: Engine) -> None:
        kept = asyncio.create_task(heard(engine.stream(mel(60), chunk=5)))
        tasks = [asyncio.create_task(heard(engine.stream(mel(4000), chunk=5))) for _ in range(3)]
        left = engine.stream(mel(4000), chunk=5)
        await anext(left)
        assert len(engine.streams)
        for task in tasks:
            task.cancel()
        await left.aclose()  # type: ignore[attr-defined]
        assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tasks, return_exceptions=True))
        alone = voc.stream()
        assert torch.equal(await kept, torch.cat([alone.push(mel(60)), alone.flush()]))
        await freed(engine)

    served(voc, use, max_streams=5)


def test_a_slow_reader_is_waited_for(voc: Vocoder) -> None:
    async def use(engine: Engine) -> None:
        slow = engine.stream(mel(2000), chunk=5)
        await anext(slow)
        quick = await heard(engine.stream(mel(100), chunk=5))
        assert len(quick) == 100 * 256
        assert engine._lives[0].out.qsize() <= 3
        assert len(engine._lives[0].chunks) > 300

    served(voc, use)


def test_a_cancelled_whole_mel_is_left_out(voc: Vocoder) -> None:
    async def use(engine: Engine) -> None:
        task = asyncio.create_task(engine.vocode(mel(10)))
        await asyncio.sleep(0)
        task.cancel()
        assert torch.equal(await engine.vocode(mel(11)), voc(mel(11), check=False))

    served(voc, use)


def test_refusals_are_typed_and_cost_the_others_nothing(voc: Vocoder) -> None:
    async def use(engine: Engine) -> None:
        bad: list[tuple[Any, type[Exception], str]] = [
            (torch.full((80, 9), float("nan")), ArgumentError, "mel: holds NaN"),
            (torch.zeros(9, 80), ShapeError, "it is transposed"),
            (torch.zeros(2, 80, 9), ShapeError, r"expected one mel \[80, T\]"),
            (np.zeros((80, 9), np.int64), DtypeError, "mel: expected floating-point"),
        ]
        good = asyncio.create_task(heard(engine.stream(mel(50), chunk=5)))
        before = Counter(voc.stats.refused)
        for value, error, message in bad:
            with pytest.raises(error, match=message):
                await engine.vocode(value)
            with pytest.raises(error, match=message):
                await heard(engine.stream(value))
        assert Counter(voc.stats.refused) - before == {"ShapeError": 4, "ArgumentError": 2, "DtypeError": 2}
        for chunk in (0, True, "5"):
            with pytest.raises(ArgumentError, match="chunk: expected 1 frame or more"):
                await heard(engine.stream(mel(5), chunk=chunk))  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="pitch"):
            await engine.vocode(mel(9), pitch=3)
        with pytest.raises(ArgumentError, match="pitch"):
            await heard(engine.stream(mel(9), pitch=3))
        assert len(await good) == 50 * 256
        await freed(engine)

    served(voc, use)


def test_more_streams_than_places(voc: Vocoder) -> None:
    async def use(engine: Engine) -> None:
        first = engine.stream(mel(500), chunk=5)
        await anext(first)
        with pytest.raises(StreamError, match="all 1 are open"):
            await heard(engine.stream(mel(5)))
        await first.aclose()  # type: ignore[attr-defined]
        await freed(engine)
        assert len(await heard(engine.stream(mel(5)))) == 5 * 256

    served(voc, use, max_streams=1)


def test_an_engine_that_is_closed_tells_those_who_wait(voc: Vocoder) -> None:
    async def run() -> None:
        engine = Engine(voc)
        task = asyncio.create_task(heard(engine.stream(mel(4000), chunk=2)))
        await asyncio.sleep(0.1)
        await engine.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


@pytest.mark.parametrize(
    "value", [np.eye(3, 5, dtype=np.float32), np.asfortranarray(np.random.rand(4, 3)), np.ones(3, ">f4")]
)
def test_npy(value: Any) -> None:
    assert np.array_equal(read_npy(npy(value)), value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros((3, 4), np.int32)),
        npy(np.zeros((3, 4), np.float32))[:-1],
        npy(np.zeros((3, 4), np.float32)) + b"\0",
        npy(np.zeros((3, 4), np.float32)).replace(b"(3, 4)", b"(9**9,)"),
        npy(np.zeros((3, 4), np.float32)).replace(b"(3, 4)", b"(-3,-4)"),
        npy(np.zeros((3, 4), np.float32)).replace(b"(3, 4)", b"(9999,)"),
        npy(np.array([None])),
    ],
)
def test_what_is_no_npy(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^mel: "):
        read_npy(data)
