"""Whole models from graphs: the same bits as calls, whatever the size of the graph; memory, threads, freezing."""

from __future__ import annotations

import copy
import threading
import time
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from codec_models import MONO, STEREO, lively
from recording import Rerun
from stream_families import MAKERS, vocoder
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, BackendError, DeviceError, DtypeError, ShapeError
from fastvoc.graphs.graphed import Graphed, bucket, bucket_lengths
from fastvoc.models.hifigan import HIFIGAN_V1, HifiGan
from fastvoc.vocoder import Vocoder
from helpers import relative_l2

native = pytest.mark.native
each_family = pytest.mark.parametrize("family", sorted(MAKERS))


def graphed(voc: Any, capture: Rerun | None = None, **options: Any) -> Graphed:
    return Graphed(voc, capture=capture or Rerun(), **options)


def mels(voc: Vocoder, *frames: int) -> list[Tensor]:
    return [torch.randn(voc.n_mels, n) for n in frames]


def padded(items: list[Tensor], longest: int, fill: float = float("nan")) -> Tensor:
    batch = torch.full((len(items), items[0].shape[0], longest), fill)
    for row, item in zip(batch, items, strict=True):
        row[:, : item.shape[1]] = item
    return batch


def test_sizes_grow_by_the_step_and_cover_every_length() -> None:
    sizes = bucket_lengths(1, 2000)
    assert sizes[:8] == [1, 2, 3, 4, 5, 6, 7, 9]
    for frames in range(1, 2001):
        size = bucket(frames)
        assert size in sizes
        assert frames <= size <= max(frames + 1, frames * 1.16)
    assert bucket_lengths(50, 60)[0] <= 60
    assert len(bucket_lengths(20, 900)) < 32
    with pytest.raises(ArgumentError, match="shortest <= longest"):
        bucket_lengths(9, 8)


@native
@each_family
def test_a_padded_size_gives_the_bits_of_a_call(family: str) -> None:
    voc = vocoder(family)
    graphs = graphed(voc)
    for frames in (29, 23, 31, 29, 12):
        (mel,) = mels(voc, frames)
        assert torch.equal(graphs(mel, check=False), voc(mel, check=False)), frames
    assert graphs.stats.replays == 5
    assert graphs.stats.graphs == len({bucket(n) for n in (29, 23, 31, 12)})


@native
@each_family
def test_a_ragged_batch_gives_the_bits_of_each_item_alone(family: str) -> None:
    voc = vocoder(family)
    graphs = graphed(voc).warmup([40], batch=4)
    for frames in ((37, 21, 40), (38, 39, 14, 40)):
        items = mels(voc, *frames)
        wavs = graphs(padded(items, 40), list(frames), check=False)
        assert wavs.shape == (len(frames), voc.config.samples(40))
        for i, (wav, item) in enumerate(zip(wavs, items, strict=True)):
            alone = voc(item[None], check=False, **({} if "seed" not in inputs_of(voc) else {"seed": 0}))[0]
            assert torch.equal(wav[: len(alone)], alone), i
            assert not wav[len(alone) :].any()
    assert graphs.stats == type(graphs.stats)(1, graphs.stats.bytes, 2, 0, 1, 0)


def inputs_of(voc: Vocoder) -> tuple[str, ...]:
    return getattr(voc.model, "inputs", ())


@native
def test_results_are_the_callers_own() -> None:
    voc = vocoder("hifigan-1")
    graphs = graphed(voc)
    first, second = mels(voc, 20, 20)
    wav = graphs(first, check=False)
    kept = wav.clone()
    graphs(second, check=False)
    assert torch.equal(wav, kept)
    wav += 1.0  # an ordinary tensor
    assert torch.equal(graphs(first, check=False), kept)


@native
def test_further_tensors_and_numbers_are_part_of_a_call() -> None:
    voc = vocoder("hift-sample")
    graphs = graphed(voc)
    (mel,) = mels(voc, 21)
    samples = 21 * voc.hop
    rows = voc.config.harmonics + 1
    for inputs in (
        {"seed": 3},
        {"seed": 4},
        {"f0": torch.rand(21) * 300},
        {"source": torch.randn(1, samples)},
        {"phase": torch.rand(rows), "noise": torch.randn(rows, samples), "f0": torch.rand(21) * 300},
    ):
        assert torch.equal(graphs(mel, check=False, **inputs), voc(mel, check=False, **inputs)), list(inputs)
    assert graphs.stats.captures == 4, "seeds share a graph"
    with pytest.raises(ArgumentError, match="nonsense"):
        graphs(mel, nonsense=1)


@native
def test_arguments_are_checked_as_in_a_call() -> None:
    voc = vocoder("hifigan-1")
    graphs = graphed(voc)
    with pytest.raises(ShapeError, match="mel"):
        graphs(torch.randn(voc.n_mels + 1, 9))
    with pytest.raises(ArgumentError, match="NaN"):
        graphs(torch.full((voc.n_mels, 9), torch.nan))
    with pytest.raises(ArgumentError, match="lengths"):
        graphs(torch.randn(2, voc.n_mels, 9), [9, 10])
    with pytest.raises(DtypeError, match="mel"):
        graphs(torch.ones(voc.n_mels, 9, dtype=torch.int64))
    assert graphs.stats.graphs == 0


@native
def test_nothing_is_captured_after_warmup() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun()
    graphs = graphed(voc, capture).warmup(bucket_lengths(20, 40), batch=(1, 4))
    made = capture.made
    assert made == 2 * len(bucket_lengths(20, 40))
    for frames in (*range(18, 44), 7, 100):
        (mel,) = mels(voc, frames)
        assert torch.equal(graphs(mel, check=False), voc(mel, check=False))
    assert capture.made == made
    assert graphs.stats.replays > 20
    assert graphs.stats.direct >= 2, "7 and 100 frames have no graph"
    mel = torch.randn(5, voc.n_mels, 30)
    assert torch.equal(graphs(mel, check=False), voc(mel, check=False))
    assert capture.made == made


@native
def test_a_missing_size_may_raise() -> None:
    voc = vocoder("hifigan-1")
    graphs = graphed(voc, missing="raise").warmup([30])
    graphs(torch.randn(voc.n_mels, 28), check=False)
    with pytest.raises(ArgumentError, match="none was made for 1 items of 50 frames"):
        graphs(torch.randn(voc.n_mels, 50), check=False)
    graphs.clear()
    graphs(torch.randn(voc.n_mels, 50), check=False)
    assert graphs.stats.graphs == 1


@native
def test_memory_keeps_within_the_cap() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun(size=2**20)
    graphs = graphed(voc, capture, max_mb=3.5)
    order = [10, 20, 30, 10, 40]
    for frames in order:
        graphs(torch.randn(voc.n_mels, frames), check=False)
        assert graphs.stats.bytes <= 3.5 * 2**20
        assert graphs.stats.graphs == capture.live
    assert (capture.made, graphs.stats.evictions) == (4, 1)
    graphs(torch.randn(voc.n_mels, 10), check=False)
    graphs(torch.randn(voc.n_mels, 30), check=False)
    assert capture.made == 4, "the least recently used one, of 20 frames, went"
    graphs(torch.randn(voc.n_mels, 20), check=False)
    assert capture.made == 5


@native
def test_a_graph_larger_than_the_cap_is_tried_once() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun(size=2**20)
    graphs = graphed(voc, capture, max_mb=0.5)
    (mel,) = mels(voc, 20)
    for _ in range(3):
        assert torch.equal(graphs(mel, check=False), voc(mel, check=False))
    assert (capture.made, capture.live, graphs.stats.graphs, graphs.stats.direct) == (1, 0, 0, 3)
    with pytest.raises(ArgumentError, match=r"0\.5 MB hold 0 of 2 graphs"):
        graphs.warmup([20, 30])


@native
def test_items_shorter_than_a_graph_may_hold_run_without_one() -> None:
    voc = vocoder("univnet")
    graphs = graphed(voc).warmup([30], batch=2)
    with pytest.raises(ShapeError, match="T >= 4"):
        graphs(torch.randn(2, voc.n_mels, 30), [30, 3], check=False)
    assert graphs.stats.direct == 1
    assert graphs(torch.randn(2, voc.n_mels, 30), [30, 4], check=False).isfinite().all()
    assert graphs.stats.replays == 1


@native
def test_what_decides_the_kernels_decides_the_graph() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun()
    graphs = graphed(voc, capture)
    (mel,) = mels(voc, 20)
    graphs(mel, check=False)
    with fastvoc.use_exact():
        assert torch.equal(graphs(mel, check=False), voc(mel, check=False))
    assert capture.made == 2
    with fastvoc.use_backend("torch"), pytest.raises(BackendError, match="read on the host"):
        graphs(mel, check=False)
    other = torch.randn_like(voc.model.conv_pre.weight)
    voc.model.conv_pre.weight = torch.nn.Parameter(other, requires_grad=False)
    assert torch.equal(graphs(mel, check=False), voc(mel, check=False))
    assert capture.made == 3


@native
@each_family
def test_a_model_that_was_cast_or_whose_part_was_replaced_makes_new_graphs(family: str) -> None:
    voc = MAKERS[family]()
    owner: Any = voc.graphable()
    before = owner.settings()
    assert owner.settings() == before
    voc.model.to(torch.bfloat16)
    cast = owner.settings()
    assert cast != before
    name, part = next((name, part) for name, part in voc.model.named_children() if [*part.parameters()])
    setattr(voc.model, name, copy.deepcopy(part))
    assert owner.settings() not in (before, cast)


@native
@pytest.mark.parametrize("family", ["hifigan-1", "hift-sample", "vocos-same"])
def test_a_call_from_a_graph_walks_no_modules(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device the walk over all modules and weights would be most of what a call costs the host."""
    voc = vocoder(family)
    graphs = Graphed(voc, capture=lambda run: Still(run())).warmup([20])
    (mel,) = mels(voc, 20)
    graphs(mel, check=False)

    def walked(*_: Any, **__: Any) -> Any:
        raise AssertionError("a walk over the modules")

    monkeypatch.setattr(torch.nn.Module, "named_modules", walked)
    monkeypatch.setattr(torch.nn.Module, "named_children", walked)
    with pytest.raises(AssertionError, match="walk"):
        next(voc.model.parameters())
    graphs(mel, check=False)
    assert graphs.stats.replays == 2


def test_what_decides_the_graph_is_found_in_a_fraction_of_a_walk() -> None:
    voc = Vocoder(HifiGan(HIFIGAN_V1), HIFIGAN_V1)
    owner: Any = voc.graphable()

    def taken(run: Any) -> float:
        times = []
        for _ in range(30):
            begin = time.thread_time()
            for _ in range(10):
                run()
            times.append(time.thread_time() - begin)
        return sorted(times)[7]

    assert taken(owner.settings) < 0.1 * taken(lambda: voc.dtype)


class Still:
    """A graph that launches nothing."""

    bytes = 0

    def __init__(self, result: Any) -> None:
        self._result = result

    def replay(self) -> Any:
        return self._result

    def in_order(self) -> Any:
        return nullcontext()

    def drop(self) -> None:
        """Holds nothing."""


@native
def test_threads_share_one() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun(size=2**20)
    graphs = graphed(voc, capture, max_mb=2.5)  # so that threads take each other's graphs away
    inputs = {frames: torch.randn(voc.n_mels, frames) for frames in (9, 14, 20, 27)}
    expected = {frames: voc(mel, check=False) for frames, mel in inputs.items()}
    wrong: list[Any] = []

    def work(seed: int) -> None:
        order = torch.randperm(4, generator=torch.Generator().manual_seed(seed)).tolist() * 6
        try:
            for i in order:
                frames = list(inputs)[i]
                if not torch.equal(graphs(inputs[frames], check=False), expected[frames]):
                    wrong.append(frames)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert graphs.stats.replays + graphs.stats.direct == 6 * 24
    assert capture.live == graphs.stats.graphs <= 2


@native
def test_calls_replay_while_another_size_is_captured() -> None:
    voc = vocoder("hifigan-1")
    slow = threading.Event()

    class Slow(Rerun):
        def __call__(self, run: Any) -> Any:
            if slow.is_set():
                time.sleep(1.0)
            return super().__call__(run)

    graphs = graphed(voc, Slow())
    small, large = mels(voc, 10, 40)
    graphs(small, check=False)
    slow.set()
    other = threading.Thread(target=lambda: graphs(large, check=False))
    other.start()
    time.sleep(0.2)
    graphs(small, check=False)
    assert other.is_alive(), "the call waited for the capture"
    other.join()
    assert graphs.stats.graphs == 2


@native
def test_codecs_decode_from_graphs() -> None:
    model = Codec(lively(MONO), MONO)
    graphs = graphed(model).warmup(bucket_lengths(20, 40), codebooks=4)
    for frames in (19, 26, 33, 40):
        codes = torch.randint(0, MONO.bins, (4, frames))
        assert torch.equal(graphs(codes), model.decode(codes)), frames
    codes = torch.randint(0, MONO.bins, (2, 4, 36))
    assert torch.equal(graphs(codes), model.decode(codes))
    assert (graphs.stats.replays, graphs.stats.direct) == (4, 1)
    wav = torch.randn(30 * model.hop - 7) * 0.1
    made = model.encode(wav, MONO.bandwidths[-1])
    assert torch.equal(graphed(model)(made), model.decode(made))
    with pytest.raises(ArgumentError, match="codes"):
        graphs(torch.full((4, 26), MONO.bins))


@native
def test_a_codec_has_a_graph_where_torch_runs_its_lstm() -> None:
    model = Codec(lively(MONO), MONO)
    assert any(layer.explain()[0] == "lstm" for layer in model.layers().values())
    with fastvoc.use_backend("lstm=torch"):
        graphs = graphed(model).warmup([20], codebooks=4)
        for shape in ((4, 18), (4, 20), (2, 4, 18)):
            codes = torch.randint(0, MONO.bins, shape)
            assert relative_l2(graphs(codes), model.decode(codes)) < 1e-6, shape
        assert (graphs.stats.replays, graphs.stats.direct) == (2, 1)


@native
def test_wrong_codes_are_told_of_later_where_the_host_does_not_wait() -> None:
    model = Codec(lively(MONO), MONO)
    graphs = graphed(model).warmup([26], codebooks=4)
    owner = graphs._owner
    codes = torch.randint(0, MONO.bins, (1, 4, 24))
    graphs.check()
    request = owner.request(codes)
    request.x[0, 1, 3] = MONO.bins + 5
    owner.run(request.x, None, {})
    with pytest.raises(ArgumentError, match=f"0..{MONO.bins - 1}"):
        graphs.check()
    graphs.check()
    owner.run(request.x, torch.tensor([3]), {})  # it lies beyond the length
    graphs.check()


def test_what_has_no_graph_says_so() -> None:
    with pytest.raises(ArgumentError, match="as a whole"):
        graphed(Codec(lively(STEREO), STEREO))
    voc = vocoder("hifigan-1")
    with pytest.raises(DeviceError, match="CUDA device, got cpu"):
        voc.graphs()
    for wrong in ({"max_mb": 0}, {"step": 1.0}, {"missing": "never"}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            graphed(voc, **wrong)  # type: ignore[arg-type]
    for lengths, batch in (([], 1), ([5], []), ([0], 1), ([5], 0)):
        with pytest.raises(ArgumentError, match="positive"):
            graphed(voc).warmup(lengths, batch)


@native
def test_warmup_takes_examples_of_further_inputs() -> None:
    voc = vocoder("hift-sample")
    graphs = graphed(voc, missing="raise").warmup([20], f0=True)
    graphs(torch.randn(voc.n_mels, 19), f0=torch.rand(19) * 200, check=False)
    with pytest.raises(ArgumentError, match="none was made"):
        graphs(torch.randn(voc.n_mels, 19), check=False)
    with pytest.raises(ArgumentError, match="pitch"):
        graphs.warmup([20], pitch=True)
