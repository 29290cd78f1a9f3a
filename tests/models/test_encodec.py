"""EnCodec: golden cases, accuracy, ragged batches, segments, configurations."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from codec_models import MONO, STEREO, UNUSUAL, codec_implementations, lively, noise
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.models.families import config_from_dict
from fastvoc.models.segments import Fade, cut, frames_of
from helpers import GoldenCase, assert_golden, golden, relative_l2

IMPLS = codec_implementations()


class Compared:
    """Compares with a golden case, and knows at the end whether every tensor of it was looked at."""

    def __init__(self, case: GoldenCase) -> None:
        self.case = case
        self.left = {*case.outputs, *(f"mid.{name}" for name in case.middle)}

    def __call__(self, ours: Tensor, name: str) -> None:
        assert_golden(ours, self.case, name)
        self.left.discard(name)


def load(case: GoldenCase, impl: str) -> Encodec:
    checkpoint = detect_and_load(case.dir)
    model = Encodec(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    model.eval().requires_grad_(False).prepare(impl)
    return model


def name_of(bandwidth: float) -> str:
    return f"bw{bandwidth:g}".replace(".", "p")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_24k(impl: str) -> None:
    compare = Compared(golden("encodec_24k"))
    model = load(compare.case, impl)
    audio, short = compare.case.inputs["audio"], compare.case.inputs["audio_short"]
    for bandwidth in model.config.bandwidths:
        name, n_q = name_of(bandwidth), model.config.codebooks(bandwidth)
        (codes,), scale = model.encode(audio, n_q, backend=impl)
        assert scale is None
        compare(codes, f"codes_{name}")
        compare(model.decode([codes], backend=impl), f"audio_{name}")
    compare(model(audio, model.config.codebooks(6.0), backend=impl), "forward_bw6")
    (codes,), _ = model.encode(short, model.config.codebooks(1.5), backend=impl)
    compare(codes, "codes_short")
    compare(model.decode([codes], backend=impl), "audio_short")
    compare(model.encoder(short, None, impl), "mid.latent_short")
    compare(model.encoder(audio, None, impl), "mid.latent")
    x = audio
    for number, name in (("0", "conv0"), ("1", "block0"), ("3", "down0")):
        x = model.encoder.layers[number](x, backend=impl)
        compare(x[:, :, :1024], f"mid.enc_{name}")
    for number in ("4", "6", "7", "9", "10", "12", "13"):
        x = model.encoder.layers[number](x, backend=impl)
    compare(x, "mid.enc_lstm")
    compare(model.quantizer.decode(compare.case.outputs["codes_bw6"], None, impl), "mid.quantized_bw6")
    x = model.decoder.layers["0"](model.quantizer.decode(compare.case.outputs["codes_bw24"], None, impl), backend=impl)
    compare(x, "mid.dec_conv0")
    compare(model.decoder.layers["3"](model.decoder.layers["1"](x, backend=impl), backend=impl), "mid.dec_up0")
    assert not compare.left


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_48k(impl: str) -> None:
    compare = Compared(golden("encodec_48k"))
    model = load(compare.case, impl)
    audio = compare.case.inputs["audio"]
    for bandwidth in model.config.bandwidths:
        segments, scale = model.encode(audio, model.config.codebooks(bandwidth), backend=impl)
        assert scale is not None
        compare(scale.T, "scale")
        for i, codes in enumerate(segments):
            compare(codes, f"codes_{name_of(bandwidth)}_seg{i}")
        wav = model.decode(segments, scale, backend=impl)
        if bandwidth in (6.0, 12.0):
            compare(wav[:, :, 46000:], f"audio_{name_of(bandwidth)}_from46000")
        else:
            compare(wav, f"audio_{name_of(bandwidth)}")
    compare(model.decode_segment(segments[0], scale[:, 0], None, impl)[:, :, -1000:], "mid.segment0_bw24_last1000")
    compare(model.decoder.layers["0"](model.quantizer.decode(segments[0], None, impl), backend=impl), "mid.dec_conv0")
    for i, piece in enumerate((audio[:, :, :48000], audio[:, :, 47520:])):
        compare(model.encoder(piece / scale[:, i, None, None], None, impl), f"mid.latent_seg{i}")
    segments, scale = model.encode(audio[:, :, :47545], model.config.codebooks(3.0), backend=impl)
    assert scale is not None
    compare(scale.T, "scale_tail")
    for i, codes in enumerate(segments):
        compare(codes, f"codes_tail_seg{i}")
    compare(model.decode(segments, scale, backend=impl)[:, :, 46000:], "audio_tail_from46000")
    assert not compare.left


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["hf_encodec_24k_small", "hf_encodec_24k_small_weight_g"])
def test_golden_transformers_24k(name: str, impl: str) -> None:
    compare = Compared(golden(name))
    model = load(compare.case, impl)
    audio = compare.case.inputs["audio"]
    for bandwidth in model.config.bandwidths:
        (codes,), _ = model.encode(audio, model.config.codebooks(bandwidth), backend=impl)
        compare(codes[None], f"codes_{name_of(bandwidth)}")
        compare(model.decode([codes], backend=impl), f"audio_{name_of(bandwidth)}")
    compare(model.encoder(audio, None, impl), "mid.latent_frame0")
    (codes,), _ = model.encode(audio[:, :, :180], backend=impl)
    compare(codes[None], "codes_short")
    compare(model.decode([codes], backend=impl), "audio_short")
    assert compare.left == {"last_frame_pad_length"}  # the number of the transformers-style class


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_transformers_48k(impl: str) -> None:
    compare = Compared(golden("hf_encodec_48k_small"))
    model = load(compare.case, impl)
    audio = compare.case.inputs["audio"]
    for bandwidth in model.config.bandwidths:
        segments, scale = model.encode(audio, model.config.codebooks(bandwidth), backend=impl)
        assert scale is not None
        padded = [torch.nn.functional.pad(s, (0, 150 - s.shape[2])) for s in segments]
        compare(torch.stack(padded), f"codes_{name_of(bandwidth)}")
        compare(model.decode(segments, scale, backend=impl), f"audio_{name_of(bandwidth)}")
        compare(scale.T[:, :, None], "scales")
    for i, piece in enumerate((audio[:, :, :48000], audio[:, :, 47520:])):
        compare(model.encoder(piece / scale[:, i, None, None], None, impl), f"mid.latent_frame{i}")
    assert compare.left == {"last_frame_pad_length"}


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_transformers_32k(impl: str) -> None:
    """The kind that MusicGen uses: it sees both sides, and its bandwidth is not among the usual ones."""
    compare = Compared(golden("hf_encodec_32k_small"))
    model = load(compare.case, impl)
    assert (model.config.sample_rate, model.config.frame_rate, model.config.causal) == (32000, 50, False)
    for end in ("", "_short"):
        audio = compare.case.inputs[f"audio{end}"]
        (codes,), scale = model.encode(audio, backend=impl)
        assert scale is None
        compare(codes[None], f"codes{end}")
        compare(model.decode([codes], backend=impl), f"audio{end}")
    compare(model.encoder(compare.case.inputs["audio"], None, impl), "mid.latent")
    compare(model.quantizer.decode(compare.case.outputs["codes"][0], None, impl), "mid.quantized")
    assert not compare.left
    codec = Codec(model, model.config, backend=impl)
    assert torch.equal(codec.encode(compare.case.inputs["audio"]).codes, compare.case.outputs["codes"][0])
    with pytest.raises(ArgumentError, match="looks ahead"):
        codec.decoding(4).stream()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_any_legal_configuration_against_float64(name: str, impl: str, nan_poison: None) -> None:
    model = lively(UNUSUAL[name])
    double = copy.deepcopy(model).double()
    hop = model.config.hop
    for samples in (1, 2, 3, 5, hop, hop + 1, 7 * hop - 1, 7 * hop, 19 * hop + 3, 4 * 3920 + 17):
        if samples > 20 * hop and model.config.segment is None:
            continue
        wav = noise(model.config, samples, 2)
        segments, scale = double.encode(wav.double(), backend="torch")
        expected = double.decode(segments, scale, backend="torch")
        assert expected.shape[2] >= samples
        ours = model.decode(segments, None if scale is None else scale.float(), backend=impl)
        assert ours.shape == expected.shape
        assert relative_l2(ours, expected) <= 1e-5, samples
        z = model.encoder(wav[:, :, : model.config.segment_length], None, impl)
        assert z.shape == (2, model.config.dimension, -(-min(samples, z.shape[2] * hop) // hop))
        assert relative_l2(z, double.encoder(wav[:, :, : model.config.segment_length].double(), None, "torch")) <= 1e-5


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["mono", "stereo", "two-sided", "causal-normed"])
def test_ragged_batch_equals_singles(name: str, impl: str, nan_poison: None) -> None:
    model = lively(UNUSUAL[name])
    lengths = [5 * 320 + 7, 3 * 3920 + 81, 1, 3920, 3 * 320, 2 * 3920 + 4000, 5]
    lengths = lengths if model.config.segment else [n % 4001 + 1 for n in lengths]
    wav = torch.full((len(lengths), model.config.channels, max(lengths)), torch.nan)
    for row, n in zip(wav, lengths, strict=True):
        row[:, :n] = noise(model.config, n)[0]
    segments, scale = model.encode(wav, 4, torch.tensor(lengths), impl)
    frames = [model.config.frames(n) for n in lengths]
    made = model.decode(segments, scale, frames, impl)
    for i, n in enumerate(lengths):
        single, volume = model.encode(wav[i : i + 1, :, :n], 4, backend=impl)
        assert [s.shape[2] for s in single] == frames[i]
        for j, codes in enumerate(single):
            assert torch.equal(segments[j][i, :, : codes.shape[2]], codes[0])
            assert not segments[j][i, :, codes.shape[2] :].any()
        assert not any(s[i].any() for s in segments[len(single) :])
        if scale is not None and volume is not None:
            assert torch.equal(scale[i, : len(single)], volume[0])
        alone = model.decode(single, volume, backend=impl)[0]
        together = made[i, :, : alone.shape[1]]
        assert torch.equal(together, alone) if impl == "cpp" else relative_l2(together, alone) < 1e-6
        assert not made[i, :, alone.shape[1] :].any()


@pytest.mark.native
@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_bits_do_not_depend_on_threads_or_batch(name: str) -> None:
    model = lively(UNUSUAL[name])
    wav = noise(model.config, 9000, 5)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        segments, scale = model.encode(wav, backend="cpp")
        results.append([*segments, scale, model.decode(segments, scale, backend="cpp")])
    torch.set_num_threads(threads)
    segments, scale = model.encode(wav[3:4], backend="cpp")
    results.append([*segments, scale, model.decode(segments, scale, backend="cpp")])
    for row in results[1:]:
        for first, other in zip(results[0], row, strict=True):
            assert (first is None) == (other is None)
            if first is not None:
                assert torch.equal(first[3:4] if len(other) == 1 else first, other)


def test_segments() -> None:
    assert [(p.item, p.index, p.start, p.size) for p in cut([48000, 5], 48000, 47520)] == [
        (0, 0, 0, 48000),
        (0, 1, 47520, 480),
        (1, 0, 0, 5),
    ]
    assert frames_of(47545, 48000, 47520, 320) == [149, 1]
    assert frames_of(47520, 48000, 47520, 320) == [149]
    assert frames_of(3 * 47520 + 480, 48000, 47520, 320) == [150, 150, 150, 2]


def faded(pieces: list[Tensor], stride: int) -> Tensor:
    """Segments [C, n_i] of one signal that come in order."""
    fade = Fade(pieces[0].shape[1], stride)
    return torch.cat([*(fade.push(piece) for piece in pieces), fade.rest()], 1)


def test_segments_fade_linearly() -> None:
    ones = torch.ones(1, 100)
    wav = faded([ones, 3 * ones, 5 * ones[:, :60]], 90)
    assert wav.shape == (1, 240)
    assert torch.allclose(wav[0, :90], torch.ones(90))
    fade = wav[0, 90:100]
    assert (fade.diff() > 0).all()
    assert torch.allclose(fade + fade.flip(0), torch.full((10,), 4.0))
    assert torch.allclose(wav[0, 100:180], torch.full((80,), 3.0))
    # The last segment ends before the one before it does: what is beyond is cut off.
    assert faded([ones, ones[:, :7]], 90).shape == (1, 97)


def test_gradients_reach_the_segments_of_a_decoding() -> None:
    model = lively(STEREO).requires_grad_(True)
    segments = [torch.randint(0, STEREO.bins, (1, STEREO.n_q, n)) for n in (13, 13, 4)]
    model.decode(segments).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.decoder.parameters())


def test_segments_of_any_order_of_lengths_are_faded() -> None:
    config = replace(STEREO, overlap=0.5)
    model = lively(config)
    counts = [13, 8, 13, 7]
    segments = [torch.randint(0, STEREO.bins, (2, STEREO.n_q, n)) for n in counts]
    made = model.decode(segments, None, [counts, [13, 5]])
    stride = config.segment_stride
    assert stride is not None
    for row, item, sizes in ((made[0], 0, counts), (made[1], 1, [13, 5])):
        parts = [
            model.decode_segment(s[item : item + 1, :, :n], None)[0] for s, n in zip(segments, sizes, strict=False)
        ]
        expected = faded(parts, stride)
        assert torch.allclose(row[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-5)
        assert not row[:, expected.shape[1] :].any()


def test_every_length_decodes() -> None:
    """At some lengths the last whole segment reaches beyond the short one after it, where upstream fails."""
    model = lively(STEREO)
    for samples in range(3920, 4420, 20):
        wav = noise(STEREO, samples)
        assert model(wav, 1).shape == wav.shape


def test_silence_stays_finite() -> None:
    model = lively(STEREO)
    wav = torch.zeros(1, 2, 9000)
    segments, scale = model.encode(wav)
    assert scale is not None
    assert torch.equal(scale, torch.full_like(scale, 1e-8))
    assert model.decode(segments, scale).isfinite().all()


@pytest.mark.parametrize("name", UNUSUAL)
def test_configuration_round_trips(name: str) -> None:
    config = UNUSUAL[name]
    assert config_from_dict("encodec", config.to_dict()) == config
    state = {name: tuple(t.shape) for name, t in Encodec(config).state_dict().items()}
    assert dict(config.tensors()) == state


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 0),
        ("channels", 3),
        ("channels", True),
        ("bandwidths", ()),
        ("bandwidths", (6.0, 3.0)),
        ("bandwidths", (-1.0,)),
        ("n_q", 31),
        ("norm", "batch_norm"),
        ("segment", -1.0),
        ("segment", 1e-9),
        ("overlap", 1.0),
        ("n_filters", 1 << 40),
        ("ratios", (8, 0)),
        ("ratios", ()),
        ("ratios", (2,) * 9),
        ("n_residual_layers", 10**9),
        ("lstm", 0),
        ("bins", 1),
        ("compress", 64),
        ("pad_mode", "circular"),
        ("trim_right_ratio", 1.5),
        ("causal", 1),
        ("dilation_base", 0),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"EncodecConfig\.{field}: got "):
        EncodecConfig(**{field: value})


def test_unknown_field_and_trim_of_a_two_sided_network() -> None:
    with pytest.raises(ArgumentError, match="'target_bandwidths'"):
        EncodecConfig.from_dict({"target_bandwidths": [6.0]})
    with pytest.raises(ArgumentError, match="trim_right_ratio"):
        replace(MONO, causal=False, trim_right_ratio=0.5)


def test_wrong_waveforms_are_named() -> None:
    model = lively(MONO)
    for wav in (torch.randn(1, 100), torch.randn(1, 2, 100), torch.randn(1, 1, 0), torch.randn(0, 1, 100)):
        with pytest.raises(ShapeError, match=r"wav: expected \[B > 0, 1, S > 0\]"):
            model.encode(wav)
    with pytest.raises(ArgumentError, match="n_q"):
        model.encode(torch.randn(1, 1, 100), 9)
