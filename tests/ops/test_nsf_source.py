"""nsf_source against published sources, exact phases, and itself in pieces."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops import _philox
from fastvoc.ops.nsf_source import KINDS, NsfSourceParams, begin, nsf_source, nsf_source_ref
from helpers import assert_golden, golden, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("nsf_source"))
each_kind = pytest.mark.parametrize("kind", KINDS)
PUBLISHED = {
    "chatterbox_hift": (24000, 480, "sample"),
    "cosyvoice1_hift": (22050, 256, "sample"),
    "cosyvoice2_hift": (24000, 480, "frame_linear"),
    "cosyvoice3_causal_hift": (24000, 480, "frame_nearest"),
    "hiftnet_original": (22050, 256, "frame_linear"),
}


def make(kind: str = "sample", hop: int = 48, harmonics: int = 8, **options: Any) -> NsfSourceParams:
    weight = torch.randn(harmonics + 1) * 2
    return NsfSourceParams(weight, torch.randn(1) * 0.1, 24000, hop, kind, **options)  # type: ignore[arg-type]


def contour(batch: int, frames: int) -> Tensor:
    """[B, 1, T] Hz, voiced and unvoiced, with values at and about the threshold."""
    f0 = 80 + 400 * torch.rand(batch, 1, frames)
    f0[torch.rand(batch, 1, frames) < 0.2] = 0
    f0[torch.rand(batch, 1, frames) < 0.1] = 10
    f0[torch.rand(batch, 1, frames) < 0.1] = 10.001
    return f0


def sines(f0: Tensor, params: NsfSourceParams, impl: str, **arguments: Any) -> Tensor:
    """[1, H + 1, S] the sines with their noise, before the merge: each alone, out of the tanh."""
    rows = []
    for row in torch.eye(9):
        alone = replace(params, weight=row, bias=torch.zeros(1))
        rows.append(torch.atanh(nsf_source(f0, alone, backend=impl, **arguments).double()))
    return torch.cat(rows, 1)


def linear_weights(case: str) -> tuple[Tensor, Tensor]:
    """The published merging layer of a case."""
    from safetensors.torch import load_file

    folder = golden(case).dir
    if case == "chatterbox_hift":
        state = {k.removeprefix("mel2wav."): v for k, v in load_file(folder / "s3gen.safetensors").items()}
    elif case == "hiftnet_original":
        state = torch.load(folder / "g_00650000", weights_only=True)["generator"]
    else:
        state = {k.removeprefix("generator."): v for k, v in torch.load(folder / "hift.pt", weights_only=True).items()}
    return state["m_source.l_linear.weight"][0], state["m_source.l_linear.bias"]


@each_impl
@pytest.mark.parametrize("case", PUBLISHED)
def test_golden_sines(case: str, impl: str) -> None:
    data, (rate, hop, kind) = golden(case), PUBLISHED[case]
    params = NsfSourceParams(torch.zeros(9), torch.zeros(1), rate, hop, kind, noise="none")  # type: ignore[arg-type]
    y = sines(data.inputs["f0_contour"][:, None], params, impl, phase=torch.zeros(1, 9)).float()
    count = data.outputs["sine_first"].shape[2]
    assert_golden(y[:, :, :count], data, "sine_first")
    if data.outputs["sine_last"].any():
        assert_golden(y[:, :, -count:], data, "sine_last")
    else:
        assert not y[:, :, -count:].any()


@each_impl
@pytest.mark.parametrize("case", ["chatterbox_hift", "cosyvoice1_hift", "cosyvoice2_hift", "hiftnet_original"])
def test_golden_source(case: str, impl: str) -> None:
    data, (rate, hop, kind) = golden(case), PUBLISHED[case]
    weight, bias = linear_weights(case)
    params = NsfSourceParams(weight, bias, rate, hop, kind, noise="none")  # type: ignore[arg-type]
    y = nsf_source(data.inputs["f0_contour"][:, None], params, phase=torch.zeros(1, 9), backend=impl)
    expected = data.outputs["source_deterministic"]
    assert_golden(y.reshape(expected.shape), data, "source_deterministic")


@each_impl
@pytest.mark.parametrize("case", ["chatterbox_hift", "cosyvoice1_hift"])
def test_golden_start_phase_and_noise(case: str, impl: str) -> None:
    data, (rate, _, _) = golden(case), PUBLISHED[case]
    params = NsfSourceParams(torch.zeros(9), torch.zeros(1), rate, 1, "sample")
    phase, noise = data.inputs["phase_vec"][:, :, 0], data.inputs["noise_unit"]
    y = sines(data.inputs["f0_short"][:, None], params, impl, phase=phase, noise=noise)
    assert_golden(y.float(), data, "sine_phase_noise")


@each_impl
def test_golden_uniform_noise(impl: str) -> None:
    """CosyVoice 3: its own F0, noise table and weights give its source."""
    data = golden("cosyvoice3_causal_hift")
    weight, bias = linear_weights("cosyvoice3_causal_hift")
    params = NsfSourceParams(weight, bias, 24000, 480, "frame_nearest", noise="uniform")
    noise = data.inputs["noise"].transpose(1, 2)
    y = nsf_source(data.outputs["f0"][:, None], params, noise=noise, backend=impl)
    assert_golden(y, data, "source")
    f0 = data.outputs["f0_streaming"][:, None]
    y = nsf_source(f0, params, noise=noise[:, :, : 480 * f0.shape[2]].contiguous(), backend=impl)
    assert_golden(y, data, "source_streaming")


def exact_phase(f0: list[float], rate: int, hop: int, kind: str, sample: int, harmonic: int) -> float:
    """Phase in cycles modulo 1, in rational numbers straight from the published definition."""
    rad = [Fraction(v) * harmonic / rate % 1 for v in f0]
    frame, k = divmod(sample, hop)
    if kind == "sample":
        return float((sum(rad[:frame]) * hop + rad[frame] * (k + 1)) % 1)
    summed = [sum(rad[: i + 1]) * hop for i in range(len(rad))]
    if kind == "frame_nearest":
        return float(summed[frame] % 1)
    at = max(Fraction(2 * sample + 1, 2 * hop) - Fraction(1, 2), Fraction(0))
    low = int(at)
    high = min(low + 1, len(summed) - 1)
    return float((summed[low] * (1 - (at - low)) + summed[high] * (at - low)) % 1)


@each_impl
@each_kind
@pytest.mark.parametrize("hop", [1, 2, 3, 15, 16, 33])
def test_phases_are_exact(kind: str, hop: int, impl: str) -> None:
    params = make(kind, hop, noise="none")
    f0 = contour(1, 12)
    f0[0, 0, 3], f0[0, 0, 7], f0[0, 0, 8] = 11999.5, 30000.25, 7777.7
    y = sines(f0, params, impl, phase=torch.zeros(1, 9))[0]
    values = f0.flatten().tolist()
    for sample in range(12 * hop):
        voiced = values[sample // hop] > 10
        for h in range(9):
            phase = exact_phase(values, 24000, hop, kind, sample, h + 1)
            expected = 0.1 * torch.tensor(phase * 2 * torch.pi, dtype=torch.float64).sin().item() * voiced
            assert abs(y[h, sample].item() - expected) < 1e-7, (sample, h)


@each_impl
@each_kind
def test_an_hour_does_not_drift(kind: str, impl: str) -> None:
    """After an hour at 24 kHz (the slow reference: a minute) the phase of the ninth sine is the exact one."""
    rate, hop = 24000, 480
    frames = (3600 if impl == "cpp" else 60) * rate // hop
    f0 = 100 + 300 * torch.rand(1, 1, frames)
    weight = torch.zeros(9)
    weight[8] = 1
    params = NsfSourceParams(weight, torch.zeros(1), rate, hop, kind, amp=1.0, noise="none")  # type: ignore[arg-type]
    exact = sum(Fraction(v) for v in f0[0, 0, :-2].tolist()) * 9 * hop / rate % 1

    state, step = begin(params, 1, phase=torch.zeros(1, 9)), 1000
    for start in range(0, frames - 2, step):
        stop = min(start + step, frames - 2)
        count = torch.tensor([stop - start])
        nsf_source(f0[:, :, start : stop + 1], params, state=state, frames=count, backend=impl)
    assert state[0, 0] == (frames - 2) * hop
    error = (state[0, 9].item() / 2**64 - float(exact) + 0.5) % 1 - 0.5
    assert abs(error) * 2 * torch.pi < 1e-6
    y = nsf_source(f0[:, :, -2:], params, state=state, backend=impl)
    last = [float(exact), *(v * 9 for v in f0[0, 0, -2:].double().tolist())]
    middles = [last[0] + last[1] * hop / rate, last[0] + (last[1] + last[2]) * hop / rate]
    k = torch.arange(1, hop + 1, dtype=torch.float64)
    meant = {
        "sample": last[0] + last[1] / rate * k,
        "frame_nearest": torch.full((hop,), middles[0]),
        "frame_linear": torch.where(
            k <= hop // 2,
            last[0] + (middles[0] - last[0]) * ((k - 0.5) / hop + 0.5),
            middles[0] + (middles[1] - middles[0]) * ((k - 0.5) / hop - 0.5),
        ),
    }[kind]
    assert (y[0, 0, :hop] - (meant * 2 * torch.pi).sin().tanh()).abs().max() < 1e-5


def test_philox_known_answers() -> None:
    """The vectors published with Random123."""
    vectors = (
        ("00000000 00000000 00000000 00000000 00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    )
    for given, expected in vectors:
        c0, c1, c2, c3, k0, k1 = (torch.tensor([int(w, 16)]) for w in given.split())
        drawn = _philox.philox((c0, c1, c2, c3), (k0, k1))
        assert [int(w) for w in drawn] == [int(w, 16) for w in expected.split()]


@each_impl
@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_drawn_noise_equals_the_reference(noise: str, impl: str) -> None:
    params = make("sample", 100, noise=noise, noise_std=0.05)
    seed = torch.tensor([0, 1, -1, 2**62 + 12345])
    f0 = contour(4, 300)
    expected = nsf_source_ref(f0.double(), to_double(params), seed=seed)
    y = nsf_source(f0, params, seed=seed, backend=impl)
    assert (y - expected).abs().max() < 2e-6


@each_impl
@pytest.mark.parametrize(("noise", "mean", "deviation"), [("normal", 0.0, 1.0), ("uniform", 0.5, 12**-0.5)])
def test_noise_is_distributed_as_said(noise: str, mean: float, deviation: float, impl: str) -> None:
    params = NsfSourceParams(torch.zeros(9), torch.zeros(1), 24000, 100, noise=noise)  # type: ignore[arg-type]
    drawn = sines(torch.zeros(1, 1, 2000), params, impl)[0] / (0.1 / 3)
    count = drawn.numel()
    assert abs(drawn.mean().item() - mean) < 5 * deviation / count**0.5
    assert abs(drawn.std().item() - deviation) < 5 * deviation / count**0.5
    correlation = torch.corrcoef(torch.cat([drawn[:, 1:], drawn[:, :-1]]))
    assert (correlation - torch.eye(18)).abs().max() < 5 / drawn.shape[1] ** 0.5
    if noise == "normal":
        assert ((drawn.abs() < 1).double().mean() - 0.682689).abs() < 0.005
        assert drawn.abs().max() < 6.7
    else:
        assert drawn.min() > -1e-7
        assert drawn.max() < 1


@each_impl
def test_noise_follows_seed_sample_and_harmonic_only(impl: str) -> None:
    params = make()
    f0 = contour(1, 40).expand(3, -1, -1)
    y = nsf_source(f0, params, seed=torch.tensor([5, 6, 5]), backend=impl)
    assert torch.equal(y[0], y[2])
    assert (y[0] - y[1]).abs().max() > 0.01
    assert torch.equal(y[:1], nsf_source(f0[:1], params, seed=torch.tensor([5]), backend=impl))
    assert torch.equal(
        nsf_source(f0[:1], params, backend=impl), nsf_source(f0[:1], params, seed=torch.tensor([0]), backend=impl)
    )


@each_impl
def test_start_phases_are_drawn_where_they_matter(impl: str) -> None:
    for kind in KINDS:
        params = make(kind, noise="none")
        f0 = torch.full((2, 1, 5), 100.0)
        y = nsf_source(f0, params, seed=torch.tensor([1, 2]), backend=impl)
        zero = nsf_source(f0, params, phase=torch.zeros(2, 9), backend=impl)
        if kind == "sample":
            assert min((y[0] - y[1]).abs().max(), (y[0] - zero[0]).abs().max()) > 0.01
        else:
            assert torch.equal(y, zero)
    fundamental = replace(make(noise="none"), weight=torch.eye(9)[0])
    assert torch.equal(
        nsf_source(f0, fundamental, seed=torch.tensor([1, 2]), backend=impl),
        nsf_source(f0, fundamental, phase=torch.zeros(2, 9), backend=impl),
    )


@each_impl
@each_kind
def test_start_phase_shifts_the_sines(kind: str, impl: str) -> None:
    params = make(kind, noise="none")
    f0 = torch.full((1, 1, 30), 123.0)
    phase = torch.randn(1, 9) * 4
    before, after = sines(f0, params, impl, phase=torch.zeros(1, 9)), sines(f0, params, impl, phase=phase)
    quarter = sines(f0, params, impl, phase=torch.full((1, 9), torch.pi / 2))
    expected = before * phase.double().cos()[..., None] + quarter * phase.double().sin()[..., None]
    assert (after - expected).abs().max() < 1e-6


@each_impl
@each_kind
@pytest.mark.parametrize("noise", ["normal", "uniform", "none"])
def test_chunks_equal_the_whole(kind: str, noise: str, impl: str, nan_poison: None) -> None:
    params = make(kind, 37, noise=noise)
    f0, seed = contour(3, 41), torch.tensor([3, 4, 2**40])
    whole = nsf_source(f0, params, seed=seed, backend=impl)
    for sizes in ((41,), (1,) * 41, (7, 1, 20, 13), (40, 1)):
        state, pieces, start = begin(params, 3, seed), [], 0
        for size in sizes:
            seen = min(start + size + params.lookahead, 41)
            count = torch.full((3,), size)
            piece = nsf_source(f0[:, :, start:seen], params, seed=seed, state=state, frames=count, backend=impl)
            assert not piece[:, :, size * 37 :].any()
            pieces.append(piece[:, :, : size * 37])
            start += size
            assert state[:, 0].tolist() == [start * 37] * 3
        joined = torch.cat(pieces, 2)
        if impl == "cpp":
            assert torch.equal(joined, whole), sizes
        else:
            torch.testing.assert_close(joined, whole, rtol=0, atol=1e-6)


@each_impl
def test_items_of_a_chunk_advance_by_their_own_frames(impl: str) -> None:
    params = make("frame_linear")
    f0 = contour(3, 10)
    lengths, frames = torch.tensor([10, 5, 4]), torch.tensor([9, 0, 4])
    state = begin(params, 3)
    y = nsf_source(f0, params, lengths=lengths, state=state, frames=frames, backend=impl)
    assert state[:, 0].tolist() == [9 * 48, 0, 4 * 48]
    assert not y[1].any()
    for i, (n, m) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        own = begin(params, 1)
        alone = nsf_source(f0[i : i + 1, :, :n], params, state=own, frames=torch.tensor([m]), backend=impl)
        assert torch.equal(state[i : i + 1], own)
        torch.testing.assert_close(y[i : i + 1, :, : m * 48], alone[:, :, : m * 48], rtol=0, atol=1e-6)


@each_impl
@each_kind
def test_ragged_batch_equals_single_items(kind: str, impl: str, nan_poison: None) -> None:
    params = make(kind)
    lengths = torch.tensor([9, 1, 17])
    f0 = torch.full((3, 1, 17), torch.nan)
    seed, phase = torch.tensor([7, 8, 9]), torch.randn(3, 9)
    noise = torch.full((3, 9, 17 * 48), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        f0[i, :, :n] = contour(1, n)[0]
        noise[i, :, : n * 48] = torch.randn(9, n * 48)
    for given in (None, noise):
        batched = nsf_source(f0, params, None, phase, seed, given, lengths, backend=impl)
        for i, n in enumerate(lengths.tolist()):
            own = None if given is None else given[i : i + 1, :, : n * 48]
            alone = nsf_source(f0[i : i + 1, :, :n], params, None, phase[i : i + 1], seed[i : i + 1], own, backend=impl)
            if impl == "cpp":
                assert torch.equal(batched[i, :, : n * 48], alone[0])
            else:
                torch.testing.assert_close(batched[i, :, : n * 48], alone[0], rtol=0, atol=1e-6)
            assert not batched[i, :, n * 48 :].any()


@each_impl
@each_kind
def test_bad_f0_stays_where_it_is_read(kind: str, impl: str) -> None:
    params = make(kind, 10)
    f0 = contour(1, 12)
    for value in (torch.nan, torch.inf, -torch.inf):
        f0[0, 0, 4] = value
        y = nsf_source(f0, params, backend=impl)[0, 0]
        touched = list(range(35 if kind == "frame_linear" else 40, 50))
        assert y.isnan().nonzero().flatten().tolist() == touched
        still = f0.clone()
        still[0, 0, 4] = 0
        same = nsf_source(still, params, backend=impl)[0, 0]
        torch.testing.assert_close(y[~y.isnan()], same[~y.isnan()], rtol=0, atol=1e-6)


@each_impl
def test_equals_the_meaning_for_any_number_of_sines(impl: str, nan_poison: None) -> None:
    for harmonics in (0, 1, 2, 3, 7, 15):
        for kind in KINDS:
            params = make(kind, 21, harmonics)
            f0 = contour(2, 13)
            expected = nsf_source_ref(f0.double(), to_double(params))
            assert relative_l2(nsf_source(f0, params, backend=impl), expected) < 2e-6


def to_double(params: NsfSourceParams) -> NsfSourceParams:
    return replace(params, weight=params.weight.double(), bias=params.bias.double())


def test_autograd_reaches_the_merging_weights() -> None:
    params = make(hop=3, harmonics=2)
    weight = params.weight.double().requires_grad_()
    bias = params.bias.double().requires_grad_()
    f0 = contour(1, 4).double()
    assert torch.autograd.gradcheck(lambda w, b: nsf_source(f0, replace(params, weight=w, bias=b)), (weight, bias))


def test_wrong_arguments_are_named() -> None:
    params, f0 = make(), contour(2, 5)
    zeros = torch.zeros(2, dtype=torch.int64)
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ShapeError, "seed: expected", {"seed": zeros[:1]}),
        (DtypeError, "seed: expected", {"seed": zeros.float()}),
        (DeviceError, "seed: expected", {"seed": zeros.to("meta")}),
        (ShapeError, "phase: expected", {"phase": torch.zeros(2, 8)}),
        (DtypeError, "phase: expected", {"phase": torch.zeros(2, 9).double()}),
        (ShapeError, "noise: expected", {"noise": torch.zeros(2, 9, 239)}),
        (DtypeError, "noise: expected", {"noise": torch.zeros(2, 9, 240).half()}),
        (ShapeError, "state: expected", {"state": torch.zeros(2, 9, dtype=torch.int64)}),
        (DtypeError, "state: expected", {"state": torch.zeros(2, 10)}),
        (ShapeError, "state: expected a contiguous", {"state": zeros[:, None].expand(2, 10)}),
        (ArgumentError, "phase: expected None", {"state": begin(params, 2), "phase": torch.zeros(2, 9)}),
        (ArgumentError, "lengths: expected", {"lengths": zeros}),
        (ShapeError, "frames: expected", {"frames": zeros[:1]}),
        (DtypeError, "frames: expected", {"frames": zeros.int()}),
        (DeviceError, "frames: expected", {"frames": zeros.to("meta")}),
        (ArgumentError, "frames: expected", {"frames": zeros + 6}),
        (ArgumentError, "frames: expected", {"frames": zeros - 1}),
        (ArgumentError, "frames: expected", {"frames": zeros + 3, "lengths": zeros + 2}),
    ]
    for error, text, arguments in wrong:
        with pytest.raises(error, match=f"nsf_source: {text}"):
            nsf_source(f0, params, **arguments)
    with pytest.raises(ShapeError, match=r"x: expected \[B > 0, 1"):
        nsf_source(f0[:, 0], params)
    for field, value in {
        "weight": torch.zeros(1, 9),
        "bias": torch.zeros(2),
        "sample_rate": 0,
        "hop": 0,
        "kind": "frame",
        "noise": "pink",
        "amp": torch.inf,
        "threshold": torch.nan,
    }.items():
        with pytest.raises((ArgumentError, ShapeError), match=f"nsf_source: .*{field}.*expected"):
            replace(params, **{field: value})


@pytest.mark.native
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8])
def test_sources_of_any_number_of_sines_draw_the_same_noise(rows: int) -> None:
    """The noise of a harmonic does not depend on how many there are."""
    few = NsfSourceParams(torch.eye(rows)[0], torch.zeros(1), 24000, 10)
    many = NsfSourceParams(torch.eye(9)[0], torch.zeros(1), 24000, 10)
    f0 = torch.zeros(1, 1, 30)
    assert torch.equal(nsf_source(f0, few, backend="cpp"), nsf_source(f0, many, backend="cpp"))
