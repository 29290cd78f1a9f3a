"""Another rate: its filter as measured, its length, and the same bits however a signal is cut, batched or ordered."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_families import QUICK
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError, StreamError
from fastvoc.ops import resample as op
from fastvoc.ops.resample import LIMIT, Due, Ratio, resample, resample_ref
from fastvoc.runtime.library import ISAS
from fastvoc.sound.resampling import (
    Converter,
    Resampler,
    joined,
    parted,
    resampled,
    resampled_length,
)
from fastvoc.streams.delivery import Delivery
from helpers import need_native, run_under

RATES = [
    (22050, 8000),
    (22050, 16000),
    (22050, 48000),
    (24000, 8000),
    (24000, 16000),
    (24000, 48000),
    (44100, 48000),
    (48000, 8000),
    (16000, 22050),
    (22050, 24001),  # goes tap by tap
    (8000, 384000),
]
each_rate = pytest.mark.parametrize(("from_rate", "to_rate"), RATES)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def taps_of(from_rate: int, to_rate: int) -> Tensor:
    """[up, taps] in float64, each phase with the sum 1."""
    return op.taps(Converter(from_rate, to_rate).ratio).double() * 2.0**24


@each_rate
def test_the_filter(from_rate: int, to_rate: int) -> None:
    """All phases are one filter at the rate of both: flat to 0.05 dB below 0.9 Nyquist, 100 dB down from Nyquist on."""
    taps = taps_of(from_rate, to_rate)
    up, width = taps.shape
    # Tap j of phase p is the filter at time (reach - 1 - j) + p / up.
    impulse = taps.flip(1).t().flatten() / up
    size = 1 << max(16, math.ceil(math.log2(len(impulse))) + 2)
    response = torch.fft.rfft(impulse, size).abs()
    hertz = torch.arange(len(response)) * (from_rate * up / size)
    nyquist = min(from_rate, to_rate) / 2
    passed = 20 * response[hertz <= 0.9 * nyquist].log10()
    assert passed.abs().max() <= 0.05
    stopped = 20 * response[hertz >= nyquist].clamp(min=1e-12).log10()
    assert stopped.max() <= -100
    assert width == 2 * Converter(from_rate, to_rate).reach


@each_rate
def test_tones(from_rate: int, to_rate: int) -> None:
    """A tone that both rates hold comes out at the other rate, in place; one that only the first holds, never."""
    nyquist = min(from_rate, to_rate) / 2
    for hertz in (0.01 * nyquist, 0.5 * nyquist, 0.9 * nyquist):
        n = torch.arange(from_rate // 4, dtype=torch.float64)
        wav = (0.5 * torch.sin(2 * math.pi * hertz / from_rate * n)).float()
        y = resampled(wav, from_rate, to_rate).double()
        meant = 0.5 * torch.sin(2 * math.pi * hertz / to_rate * torch.arange(len(y), dtype=torch.float64))
        edge = len(y) // 8
        assert (y - meant)[edge:-edge].abs().max() < 0.5 * 10 ** (-100 / 20)
    for hertz in [f for f in (1.0001 * nyquist, 1.3 * nyquist, 0.95 * from_rate / 2) if nyquist < f < from_rate / 2]:
        n = torch.arange(from_rate // 4, dtype=torch.float64)
        wav = (0.5 * torch.sin(2 * math.pi * hertz / from_rate * n)).float()
        y = resampled(wav, from_rate, to_rate)
        edge = len(y) // 8
        assert y[edge:-edge].abs().max() < 0.5 * 10 ** (-100 / 20)


@each_rate
def test_a_constant_keeps_its_level(from_rate: int, to_rate: int) -> None:
    y = resampled(torch.full((from_rate // 4,), 0.25), from_rate, to_rate)
    edge = len(y) // 4
    assert (y[edge:-edge] == 0.25).all()


@each_rate
def test_the_sums_are_exact(from_rate: int, to_rate: int) -> None:
    """Taps are whole units, and the largest sum of products has no more than 53 bits."""
    taps = taps_of(from_rate, to_rate) * 2.0**24
    assert torch.equal(taps, taps.round())
    assert (taps.sum(1) == 2.0**24).all()
    assert taps.abs().sum(1).max() * LIMIT * 2.0**24 <= 2.0**53


@each_rate
def test_against_exact_sums(from_rate: int, to_rate: int) -> None:
    """Some outputs, by the definition, in whole numbers."""
    wav = noise(3000)
    y = resampled(wav, from_rate, to_rate)
    taps = (taps_of(from_rate, to_rate) * 2.0**24).long()
    units = (wav.double() * 2.0**24).round().long()
    up, width = taps.shape
    down = Fraction(from_rate, to_rate).numerator
    for n in [0, 1, len(y) // 3, len(y) // 2, len(y) - 1]:
        base, phase = n * down // up, n * down % up
        places = [base - width // 2 + 1 + j for j in range(width)]
        total = sum(int(units[i]) * int(taps[phase, j]) for j, i in enumerate(places) if 0 <= i < len(wav))
        assert y[n] == torch.tensor(float(Fraction(total, 1 << 48))).float()


@each_rate
@QUICK
@given(samples=st.integers(0, 9000), cuts=st.lists(st.integers(0, 9000), max_size=8), seed=st.integers(0, 99))
def test_any_chunking_is_the_whole(from_rate: int, to_rate: int, samples: int, cuts: list[int], seed: int) -> None:
    wav = noise(2, samples, seed=seed)
    whole = resampled(wav, from_rate, to_rate)
    assert whole.shape == (2, resampled_length(samples, from_rate, to_rate))
    stream = Resampler(from_rate, to_rate)
    edges = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    parts = [stream.push(wav[:, a:b]) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat([*parts, stream.flush()], 1), whole)
    assert torch.equal(whole[1], resampled(wav[1], from_rate, to_rate))


def test_a_long_signal_runs_in_pieces_with_the_same_bits() -> None:
    wav = noise(100_003)
    whole = resampled(wav, 22050, 48000)
    stream = Resampler(22050, 48000)
    assert torch.equal(torch.cat([stream.push(wav[None]), stream.flush()], 1)[0], whole)


@pytest.mark.parametrize(
    ("samples", "from_rate", "to_rate", "meant"),
    [
        (1, 2000, 1000, 1),
        (3, 2000, 1000, 2),
        (1, 3000, 1000, 0),
        (2, 3000, 1000, 1),
        (5, 22050, 8000, 2),
        (0, 8000, 1000, 0),
    ],
)
def test_lengths_round_halves_upwards(samples: int, from_rate: int, to_rate: int, meant: int) -> None:
    assert resampled_length(samples, from_rate, to_rate) == meant
    assert len(resampled(noise(samples), from_rate, to_rate)) == meant


def same(ours: tuple[Tensor, ...], meant: tuple[Tensor, ...]) -> None:
    for a, b in zip(ours, meant, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a.isnan(), b.isnan())
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


ODD_RATES = [
    *((22050, to) for to in (8000, 16000, 48000, 44100, 11025, 7999)),
    (8000, 22050),
    (48000, 1000),
    (3000, 8000),
]


@pytest.mark.native
@pytest.mark.parametrize(("from_rate", "to_rate"), ODD_RATES)
@QUICK
@given(
    rows=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 5000), min_size=1, max_size=5),
    odd=st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -9.0, 1e-30]), max_size=3),
    s16=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_is_the_reference_bit_for_bit(
    from_rate: int, to_rate: int, rows: int, cuts: list[int], odd: list[float], s16: bool, seed: int
) -> None:
    """Chunks of every size, none included, of rows that do not lie densely, with values that are no samples."""
    need_native()
    edges = [0, *sorted(cuts), 5000]
    wav = noise(rows, 6000, seed=seed)[:, 500:5500] * 4
    for i, value in enumerate(odd):
        wav[i % rows, (seed + 1) * (i + 1) * 37 % 5000] = value
    converter = Converter(from_rate, to_rate)
    ratio, place = converter.ratio, converter.begin(rows, wav.device)
    for a, b in pairwise(edges):
        final = b == 5000
        y, after, clipped = converter.advance(place, wav[:, a:b], final=final, s16=s16)
        kept = place.tail.shape[1] + b - a + final * converter.reach - after.tail.shape[1]
        due = Due(final * converter.reach, place.made % ratio.up, y.shape[1], kept, s16)
        same((y, after.tail, clipped), resample_ref(ratio, wav[:, a:b], place.tail, due))
        place = after


@pytest.mark.native
def test_native_refuses_what_does_not_fit() -> None:
    need_native()
    ratio, x, tail = Ratio(2, 1), noise(2, 50), noise(2, 68 + 69)
    for wrong in (Due(0, 2, 3, 0), Due(0, -1, 3, 0), Due(0, 0, -1, 0), Due(-1, 0, 3, 0), Due(0, 0, 3, 200)):
        with pytest.raises(RuntimeError, match="resample: expected"):
            resample(ratio, x, tail, wrong)
    for chunk, held, name in ((x.double(), tail, "x"), (x, tail[:1], "tail"), (x[0, :, None].t()[0:1], tail, "tail")):
        with pytest.raises(RuntimeError, match=f"{name}: expected"):
            resample(ratio, chunk, held, Due(0, 0, 3, 0))


@pytest.mark.native
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_same_bits(isa: str) -> None:
    assert run_under(isa, SCRIPT) == "2 2 2 2 2 2\n"


SCRIPT = """
import torch
from fastvoc.ops.resample import Due, Ratio, resample, resample_ref

x, tail = torch.randn(2, 3000), torch.randn(2, 1001)
for ratio in (Ratio(320, 147), Ratio(160, 441), Ratio(3, 7), Ratio(1, 2), Ratio(2, 1), Ratio(401, 400)):
    equal = 0
    for s16 in (False, True):
        due = Due(5, ratio.up // 2, 1700 * ratio.up // ratio.down, 50, s16)
        pairs = zip(resample(ratio, x, tail, due), resample_ref(ratio, x, tail, due))
        equal += all(torch.equal(a, b) for a, b in pairs)
    print(equal, end="\\n" if ratio.up == 401 else " ")
"""


def test_where_nan_goes() -> None:
    """To the outputs that read it and to no other, whatever the chunks."""
    wav = noise(1, 4000)
    wav[0, 1777] = torch.nan
    converter = Converter(22050, 16000)
    y, _ = converter.whole(wav)
    up, down = converter.ratio
    base = torch.arange(y.shape[1]) * down // up
    assert torch.equal(y[0].isnan(), (base - converter.reach < 1777) & (base + converter.reach >= 1777))
    due = Due(converter.reach, 0, y.shape[1], 0)
    same((y,), resample_ref(converter.ratio, wav, converter.begin(1, wav.device).tail, due)[:1])


@each_rate
def test_latency(from_rate: int, to_rate: int) -> None:
    """Outputs come as soon as the inputs that far behind their position are there, and not before."""
    stream = Resampler(from_rate, to_rate)
    made = 0
    for n in range(1, 1200):
        made += stream.push(torch.zeros(1, 1)).shape[1]
        due = max(n - stream.latency, 0) * Fraction(to_rate, from_rate)
        assert due <= made < due + 1
    assert stream.latency <= math.ceil(69 * max(1.0, from_rate / to_rate))


def test_signals_at_one_point_run_together() -> None:
    converter = Converter(22050, 16000)
    wavs = [noise(1, 4000, seed=i) for i in range(3)]
    firsts = [441 * 2, 441 * 4, 441 * 6]  # whole periods apart
    places = []
    for wav, first in zip(wavs, firsts, strict=True):
        place = converter.begin(1, wav.device)
        places.append(converter.step(place, wav[:, :first], final=False)[1])
    assert len({converter.alike(place) for place in places}) == 1
    chunk = torch.cat([wav[:, first : first + 300] for wav, first in zip(wavs, firsts, strict=True)])
    before = joined(places)
    made, after = converter.step(before, chunk, final=False)
    for i, place in enumerate(parted(places, before, after)):
        alone, meant = converter.step(places[i], chunk[i : i + 1], final=False)
        assert torch.equal(made[i : i + 1], alone)
        assert (place.given, place.made) == (meant.given, meant.made)
        assert torch.equal(place.tail, meant.tail)


def test_what_is_too_loud_is_taken_for_the_limit() -> None:
    wav = torch.full((4000,), 1e30)
    assert (resampled(wav, 16000, 8000)[800:-800] == LIMIT).all()


@pytest.mark.parametrize("rate", [0, -1, 999, 384001, 8000.0, True, "8000", None])
def test_rates_that_cannot_be(rate: object) -> None:
    with pytest.raises(ArgumentError, match=r"rate: expected a whole number in 1000\.\.384000 Hz"):
        resampled(noise(3), 22050, rate)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="rate"):
        Resampler(rate, 22050)  # type: ignore[arg-type]


def test_other_wrong_arguments() -> None:
    with pytest.raises(DtypeError, match=r"wav: expected a floating-point tensor, got torch\.int16"):
        resampled(torch.zeros(3, dtype=torch.int16), 22050, 8000)
    with pytest.raises(ShapeError, match="a number"):
        resampled(torch.tensor(1.0), 22050, 8000)
    stream = Resampler(22050, 8000)
    stream.push(noise(2, 10))
    with pytest.raises(ShapeError, match="expected 2 signals"):
        stream.push(noise(3, 10))


def test_a_stream_at_the_same_rate_gives_what_came() -> None:
    stream, wav = Resampler(22050, 22050), noise(2, 3, 50)
    assert stream.latency == 0
    assert torch.equal(torch.cat([stream.push(wav[..., :20]), stream.push(wav[..., 20:]), stream.flush()], -1), wav)


def test_the_rest_has_the_axes_of_what_came() -> None:
    for shape in ((500,), (2, 3, 500)):
        stream, wav = Resampler(24000, 8000), noise(*shape)
        assert torch.equal(torch.cat([stream.push(wav), stream.flush()], -1), resampled(wav, 24000, 8000))


def test_axes_and_dtypes() -> None:
    wav = noise(2, 3, 500)
    y = resampled(wav, 24000, 8000)
    assert y.shape == (2, 3, 167)
    assert torch.equal(y[1, 2], resampled(wav[1, 2], 24000, 8000))
    assert torch.equal(resampled(wav.double(), 24000, 8000), y)
    assert resampled(noise(2, 0), 24000, 8000).shape == (2, 0)
    assert resampled(wav, 24000, 24000) is wav


def test_equal_rates_take_floats_only_and_an_end_is_one() -> None:
    with pytest.raises(DtypeError, match="wav"):
        resampled(torch.zeros(5, dtype=torch.int16), 8000, 8000)
    live = Resampler(16000, 8000)
    live.push(torch.zeros(50), final=True)
    for more in (lambda: live.push(torch.zeros(50)), live.flush):
        with pytest.raises(StreamError, match="reset"):
            more()
    live.reset()
    assert len(live.push(torch.zeros(50), final=True)) == 25


def test_a_delivery_of_the_own_rate_leaves_the_input_alone() -> None:
    wav = torch.ones(2, 10)
    out, _ = Delivery(8000, 8000, "s16").whole(wav, [4, 10])
    assert int(out[0, 4:].abs().max()) == 0
    assert torch.equal(wav, torch.ones(2, 10))


def test_numbers_of_numpy_are_rates_and_seeds_have_ends() -> None:
    assert Delivery.of(16000, np.int64(8000), "f32", None) == Delivery(16000, 8000)  # type: ignore[arg-type]
    for seed in (1 << 70, 1 << 62, -(1 << 64)):
        with pytest.raises(ArgumentError, match="dither"):
            Delivery.of(16000, None, "s16", seed)
