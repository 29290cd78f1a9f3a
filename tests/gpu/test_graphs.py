"""CUDA graphs on a device: the bits of direct launches, no waiting host, streams and threads, memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from stream_families import MAKERS
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, BackendError
from fastvoc.graphs.graphed import Graphed, bucket_lengths
from fastvoc.vocoder import Vocoder

pytestmark = pytest.mark.gpu

each_backend = pytest.mark.parametrize("backend", [None, "triton", "cuda"])
each_family = pytest.mark.parametrize("family", sorted(MAKERS))


def on_device(family: str, backend: str | None, dtype: torch.dtype = torch.float32) -> Vocoder:
    """A small vocoder of a family; skips where its layers have no kernels that mask on the device."""
    voc = MAKERS[family]()
    voc.backend = backend
    try:
        return voc.to("cuda", dtype)
    except BackendError as error:
        pytest.skip(str(error))


def graphed(voc: Any, **options: Any) -> Graphed:
    return Graphed(voc, **options)


def warm(graphs: Graphed, *args: Any, **options: Any) -> Graphed:
    try:
        return graphs.warmup(*args, **options)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_waiting() -> Callable[[], Any]:
    """A context in which every wait of the host for the device raises."""

    @contextmanager
    def forbidden() -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    return forbidden


@each_backend
@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_replay_gives_the_bits_of_a_call(family: str, backend: str | None, dtype: torch.dtype) -> None:
    voc = on_device(family, backend, dtype)
    graphs = warm(graphed(voc), bucket_lengths(20, 40), batch=(1, 3))
    for frames in (20, 23, 31, 37, 40):
        mel = torch.randn(voc.n_mels, frames, device="cuda")
        assert torch.equal(graphs(mel), voc(mel)), frames
    frames = [31, 17, 40]
    mel = torch.randn(3, voc.n_mels, 40, device="cuda")
    for row, count in zip(mel, frames, strict=True):
        row[:, count:] = torch.nan
    together = graphs(mel, frames)
    for i, count in enumerate(frames):
        alone = voc(mel[i : i + 1, :, :count])[0]
        assert torch.equal(together[i, : len(alone)], alone), i
        assert not together[i, len(alone) :].any()
    assert graphs.stats.direct == 0


@each_backend
@each_family
def test_the_host_does_not_wait(family: str, backend: str | None, no_waiting: Any) -> None:
    voc = on_device(family, backend)
    graphs = warm(graphed(voc), [30], batch=(1, 2))
    one, two = (torch.randn(n, voc.n_mels, 30, device="cuda") for n in (1, 2))
    lengths = torch.tensor([30, 21])
    graphs(two, lengths)
    voc.model(two, lengths, backend=backend)
    with no_waiting(), torch.inference_mode():
        graphs(one)
        graphs(two, lengths)
        graphs(two, torch.tensor([19, 30]))
        voc.model(one.to(voc.dtype), None, backend=backend)
        voc.model(two.to(voc.dtype), lengths, backend=backend)


@each_backend
def test_a_codec_decodes_without_waiting(backend: str | None, no_waiting: Any) -> None:
    model = Codec(lively(MONO), MONO, backend=backend)
    try:
        model.to("cuda")
    except BackendError as error:
        pytest.skip(str(error))
    graphs = warm(graphed(model), [40], codebooks=4)
    codes = torch.randint(0, MONO.bins, (1, 4, 37), device="cuda")
    assert torch.equal(graphs(codes), model.decode(codes))
    with no_waiting():
        graphs(codes)
        graphs(codes.fill_(MONO.bins + 7))
    with pytest.raises(ArgumentError, match="codes"):
        graphs.check()


@each_backend
@each_family
def test_streams_step_from_graphs_without_waiting(family: str, backend: str | None, no_waiting: Any) -> None:
    voc = on_device(family, backend)
    try:
        ours, plain = fastvoc.Streams(voc, graphs_mb=256), fastvoc.Streams(voc)
    except BackendError as error:
        pytest.skip(str(error))
    mel = torch.randn(2, voc.n_mels, 160, device="cuda")
    for t in range(0, 160, 5):
        chunks = {i: mel[i, :, t : t + 5] for i in range(2)}
        if t < 150:
            made = ours.step(chunks)
        else:
            with no_waiting():
                made = ours.step(chunks)
        for name, wav in plain.step(chunks).items():
            assert torch.equal(made[name], wav), (name, t)
    assert ours.graphs is not None
    assert ours.graphs.replays >= 10


def embedded(dtype: str = "bf16") -> tuple[Vocoder, Graphed]:
    voc = fastvoc.load("hifigan", device="cuda", dtype=dtype)
    return voc, warm(graphed(voc), bucket_lengths(40, 120), batch=(1, 4))


def mel_of(voc: Vocoder, frames: int) -> Tensor:
    return torch.randn(voc.n_mels, frames, device="cuda") - 5.0


def test_a_thousand_replays_give_one_result_beside_other_streams() -> None:
    voc, graphs = embedded()
    mel, other = mel_of(voc, 86), mel_of(voc, 60)
    expected = voc(mel)
    busy, beside = torch.cuda.Stream(), torch.cuda.Stream()
    wrong = torch.zeros((), dtype=torch.bool, device="cuda")
    beside.wait_stream(torch.cuda.current_stream())
    for i in range(1000):
        with torch.cuda.stream(busy):
            graphs(other)
        with torch.cuda.stream(beside if i % 2 else torch.cuda.current_stream()):
            wrong.logical_or_((graphs(mel) != expected).any())
    torch.cuda.synchronize()
    assert not bool(wrong)


def test_threads_with_streams_of_their_own_share_graphs() -> None:
    voc, graphs = embedded()
    inputs = [mel_of(voc, frames) for frames in (45, 61, 86, 119)]
    expected = [voc(mel) for mel in inputs]
    torch.cuda.synchronize()
    wrong: list[Any] = []

    def work(seed: int) -> None:
        order = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(seed)).tolist()
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                wrong.extend(i for i in order if not torch.equal(graphs(inputs[i]), expected[i]))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert wrong == []
    assert graphs.stats.replays == 16 * 200


def test_memory_stays_flat_and_dropping_graphs_gives_it_back() -> None:
    voc = fastvoc.load("hifigan", device="cuda", dtype="bf16")
    lengths = torch.randint(20, 900, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    voc(mel_of(voc, 900))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    graphs = graphed(voc, max_mb=96)
    try:
        graphs(mel_of(voc, 100))
    except BackendError as error:
        pytest.skip(str(error))
    for frames in lengths:
        graphs(mel_of(voc, frames))
        assert graphs.stats.bytes <= 96 * 2**20
    assert graphs.stats.evictions > 0
    graphs.clear()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() - before < 2**20
    graphs.warmup(bucket_lengths(20, 60))
    held = torch.cuda.memory_allocated()
    for frames in lengths[:200]:
        graphs(mel_of(voc, 20 + frames % 40))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == held


def test_too_little_memory_raises_and_the_next_call_works() -> None:
    voc = fastvoc.load("hifigan", device="cuda", dtype="fp32")
    small = mel_of(voc, 50)
    expected = voc(small)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2**28) / total))
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            graphed(voc, max_mb=2**20)(torch.randn(64, voc.n_mels, 4000, device="cuda"))
        torch.cuda.empty_cache()
        assert torch.equal(graphed(voc)(small), expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
