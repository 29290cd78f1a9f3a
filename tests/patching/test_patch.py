"""`fastvoc.patch` and `fastvoc.unpatch`: models of other packages before, between and after."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import yaml
from other_packages import (
    CausalConvRNNF0Predictor,
    CausalHiFTGenerator,
    ChatterboxTTS,
    ConvRNNF0Predictor,
    CosyVoice,
    Generator,
    HiFTGenerator,
    S3Gen,
    SineGen,
    SineGen2,
    SynthesizerTrn,
    Vits,
)
from safetensors.torch import load_file
from torch import Tensor, nn

import fastvoc
from fastvoc.errors import ArgumentError
from fastvoc.patching.hifigan import VitsHifiGan
from helpers import GoldenCase, assert_golden, golden, relative_l2

HIFT = {
    "cosyvoice1_hift": (HiFTGenerator, ConvRNNF0Predictor, SineGen),
    "cosyvoice2_hift": (HiFTGenerator, ConvRNNF0Predictor, SineGen2),
    "cosyvoice3_causal_hift": (CausalHiFTGenerator, CausalConvRNNF0Predictor, SineGen2),
    "chatterbox_hift": (HiFTGenerator, ConvRNNF0Predictor, SineGen),
}


class _Loader(yaml.SafeLoader):
    """Reads CosyVoice's YAML without its classes."""


def _plain(loader: Any, suffix: str, node: Any) -> Any:
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else node.value


_Loader.add_multi_constructor("!", _plain)


def hift(name: str, case: GoldenCase) -> HiFTGenerator:
    """The generator of a golden case, as its package holds it."""
    generator, predictor, sines = HIFT[name]
    if name == "chatterbox_hift":
        values = yaml.safe_load((case.dir / "config.json").read_text())
        state = load_file(case.dir / "s3gen.safetensors")
        state = {key.removeprefix("mel2wav."): t for key, t in state.items() if key.startswith("mel2wav.")}
    else:
        top = yaml.load((case.dir / "config.yaml").read_text(), Loader=_Loader)
        values = {**top["hift"], "sampling_rate": top["sample_rate"]}
        state = torch.load(case.dir / "hift.pt", map_location="cpu", weights_only=True)
        state = {key.removeprefix("generator."): tensor for key, tensor in state.items()}
    f0 = predictor(**values.pop("f0_predictor"))
    made = generator(f0, sines, **values)
    made.load_state_dict(state)
    return made.eval()


def vits(**changes: Any) -> Any:
    """Transformers' model, small and with random weights that keep signals lively."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    values: dict[str, Any] = {
        "vocab_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 16,
        "flow_size": 16,
        "spectrogram_bins": 9,
        "upsample_initial_channel": 32,
        "upsample_rates": [4, 4],
        "upsample_kernel_sizes": [8, 8],
        "posterior_encoder_num_wavenet_layers": 1,
        "prior_encoder_num_wavenet_layers": 1,
        "duration_predictor_filter_channels": 8,
        "num_speakers": 3,
        "speaker_embedding_size": 6,
    }
    torch.manual_seed(0)
    model = transformers.VitsModel(transformers.VitsConfig(**{**values, **changes})).eval()
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, 0.0, max(parameter[0].numel(), 1) ** -0.5)
    return model


@torch.no_grad()
def speech(model: Any) -> Tensor:
    torch.manual_seed(1)
    wav: Tensor = model(torch.tensor([[1, 2, 3, 4, 5, 6]]), speaker_id=1).waveform
    return wav


def test_transformers_vits() -> None:
    model = vits()
    before, original = speech(model), model.decoder
    done = fastvoc.patch(model)
    assert str(done).startswith("VitsModel.decoder: VitsHifiGan (0.0")
    assert str(done).endswith(" million parameters) now runs on fastvoc")
    assert (done.model, done.place, done.replaced) == ("VitsModel", "decoder", "VitsHifiGan")
    assert isinstance(model.decoder, VitsHifiGan)
    assert relative_l2(speech(model), before) <= 1e-5
    fastvoc.unpatch(model)
    assert model.decoder is original
    assert torch.equal(speech(model), before)


def test_transformers_vits_with_weight_norm_and_another_slope() -> None:
    model = vits(leaky_relu_slope=0.2)
    model.decoder.apply_weight_norm()
    before = speech(model)
    fastvoc.patch(model)
    assert relative_l2(speech(model), before) <= 1e-5


def test_what_a_model_does_to_its_parts_reaches_the_new_one() -> None:
    model = vits()
    fastvoc.patch(model)
    narrow = copy.deepcopy(model).bfloat16()
    assert narrow.decoder.conv_post.weight.dtype is torch.bfloat16
    wav = narrow.decoder(torch.randn(1, 16, 5).bfloat16(), torch.randn(1, 6, 1).bfloat16())
    assert wav.shape == (1, 1, 80)
    fastvoc.unpatch(narrow)
    assert narrow.decoder.conv_post.weight.dtype is torch.bfloat16
    assert model.decoder.conv_post.weight.dtype is torch.float32
    assert not any(parameter.requires_grad for parameter in model.decoder.parameters())
    assert not any("replaced" in name for name in model.state_dict())


@pytest.mark.parametrize("speaker", [0, 5])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize(("model", "place"), [(Vits, "waveform_decoder"), (SynthesizerTrn, "dec")])
def test_vits_of_other_packages(model: Any, place: str, pairs: bool, speaker: int) -> None:
    torch.manual_seed(0)
    whole = model(speaker=speaker, pairs=pairs).eval()
    original = getattr(whole, place)
    latent = torch.randn(2, 6, 11)
    given = (latent, torch.randn(2, speaker, 1)) if speaker else (latent,)
    with torch.no_grad():
        before = original(*given)
        done = fastvoc.patch(whole)
        after = getattr(whole, place)(*given)
    assert done.place == place
    assert type(getattr(whole, place)) is not type(original)
    assert relative_l2(after, before) <= 1e-5
    fastvoc.unpatch(whole)
    assert getattr(whole, place) is original


def test_coquis_padding() -> None:
    model = Vits().eval()
    latent = torch.randn(1, 6, 9)
    with torch.no_grad():
        wanted = model.waveform_decoder(nn.functional.pad(latent, (2, 2), "replicate"))
    fastvoc.patch(model)
    new: Any = model.waveform_decoder
    new.remove_weight_norm()
    assert relative_l2(new.inference(latent), wanted) <= 1e-5


@pytest.mark.golden
@pytest.mark.parametrize("name", HIFT)
def test_hift(name: str) -> None:
    case = golden(name)
    original = hift(name, case)
    model: Any = (ChatterboxTTS if name == "chatterbox_hift" else CosyVoice)(original)
    done = fastvoc.patch(model)
    place = "s3gen.mel2wav" if name == "chatterbox_hift" else "model.hift"
    assert str(done).startswith(f"{type(model).__name__}.{place}: {type(original).__name__} (")
    new = model.s3gen.mel2wav if name == "chatterbox_hift" else model.model.hift
    source = case.inputs.get("source", case.outputs.get("source"))
    with torch.inference_mode():
        assert_golden(new.decode(x=case.inputs["mel"], s=source), case, "wav")
        assert_golden(new.f0_predictor(case.inputs["mel"]), case, "f0")
        wav, _ = new.inference(speech_feat=case.inputs["mel"])
    assert wav.shape == case.outputs["wav"].shape
    with pytest.raises(ArgumentError, match="runs on fastvoc already"):
        fastvoc.patch(model)
    fastvoc.unpatch(model)
    assert (model.s3gen.mel2wav if name == "chatterbox_hift" else model.model.hift) is original


@pytest.mark.golden
def test_parts_of_models_are_known_too() -> None:
    case = golden("chatterbox_hift")
    part = S3Gen(hift("chatterbox_hift", case)).eval()
    assert fastvoc.patch(part).place == "mel2wav"
    case = golden("cosyvoice2_hift")
    model = CosyVoice(hift("cosyvoice2_hift", case)).model
    assert fastvoc.patch(model).place == "hift"


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"^model: no decoder that is known in a Linear; expected .*Chatterbox"):
        fastvoc.patch(nn.Linear(2, 2))
    other = nn.Module()
    other.decoder = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match=r"in a Module \(decoder is a Linear\)"):
        fastvoc.patch(other)
    with pytest.raises(ArgumentError, match=r"^model: the dec of this SynthesizerTrn is not fastvoc's"):
        fastvoc.unpatch(SynthesizerTrn())
    with pytest.raises(ArgumentError, match="no decoder that is known in a Linear"):
        fastvoc.unpatch(nn.Linear(2, 2))


def refused(model: Any, message: str) -> None:
    before = model.dec if isinstance(model, SynthesizerTrn) else model.waveform_decoder
    with pytest.raises(ArgumentError, match=message):
        fastvoc.patch(model)
    assert (model.dec if isinstance(model, SynthesizerTrn) else model.waveform_decoder) is before


def test_training_is_refused() -> None:
    message = r"^model: this SynthesizerTrn is in training mode; call eval\(\) first"
    refused(SynthesizerTrn(), message)
    half = SynthesizerTrn()
    half.dec.eval()
    refused(half, message)


def test_the_old_decoder_takes_the_mode_of_the_new_one() -> None:
    for training in (True, False):
        model = SynthesizerTrn().eval()
        fastvoc.patch(model)
        model.train(training)
        fastvoc.unpatch(model)
        assert {module.training for module in model.dec.modules()} == {training}


def test_autocast() -> None:
    model = SynthesizerTrn(speaker=5).eval()
    fastvoc.patch(model)
    latent, speaker = torch.randn(1, 6, 11), torch.randn(1, 5, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wav = model.dec(latent.bfloat16(), speaker.bfloat16())
    with torch.no_grad():
        assert torch.equal(wav, model.dec(latent.bfloat16().float(), speaker.bfloat16().float()))


@pytest.mark.golden
@pytest.mark.parametrize("name", HIFT)
def test_autocast_of_hift(name: str) -> None:
    """Inside it a model is patched as outside, and what comes in narrow is computed in the type of the weights."""
    case = golden(name)
    model: Any = (ChatterboxTTS if name == "chatterbox_hift" else CosyVoice)(hift(name, case))
    mel, source = case.inputs["mel"], case.inputs.get("source", case.outputs.get("source"))
    with torch.autocast("cpu", torch.bfloat16):
        fastvoc.patch(model)
    new = model.s3gen.mel2wav if name == "chatterbox_hift" else model.model.hift

    def results(x: Tensor, s: Tensor) -> list[Tensor]:
        torch.manual_seed(2)
        return [new.decode(x, s), new.f0_predictor(x), *new.inference(speech_feat=x), *new.inference_batch([x[0]])[0]]

    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            ours = results(mel.bfloat16(), source.bfloat16())
        wanted = results(mel.bfloat16().float(), source.bfloat16().float())
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in wanted]
    assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


def test_parts_that_have_no_place_are_named() -> None:
    model = Vits(speaker=5)
    model.waveform_decoder.conds = nn.ModuleList([nn.Conv1d(5, 8, 1)])  # XTTS: a speaker in every stage
    refused(model.eval(), r"HifiganGenerator: tensor 'conds\.0\.weight' has no place")


def test_another_shape_is_named() -> None:
    model = SynthesizerTrn()
    model.dec.resblocks[3] = nn.ModuleDict({"convs1": nn.ModuleList()})
    refused(model.eval(), r"Generator: tensor 'resblocks\.3\.convs1\.0\.weight' is missing")
    model = SynthesizerTrn()
    del model.dec.conv_pre
    refused(model.eval(), r"Generator: not built like a HiFi-GAN")


class _Louder(Generator):
    """Built the same, but it computes something else."""

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        return 1.1 * super().forward(x, g)


def test_another_arithmetic_is_refused() -> None:
    torch.manual_seed(0)
    model = SynthesizerTrn()
    model.dec = _Louder()
    refused(model.eval(), r"_Louder computes something else than fastvoc's decoder .* relative L2 0\.091")


@pytest.mark.golden
def test_a_source_of_another_kind_is_refused() -> None:
    case = golden("cosyvoice1_hift")
    generator = hift("cosyvoice1_hift", case)
    generator.m_source.l_sin_gen = SineGen2(0.1, 0.003, 10)
    with pytest.raises(ArgumentError, match="sines of SineGen2 at 22050 Hz, expected SineGen"):
        fastvoc.patch(CosyVoice(generator))


def test_torchs_generator_is_left_alone() -> None:
    model = SynthesizerTrn().eval()
    torch.manual_seed(3)
    fastvoc.patch(model)
    drawn = torch.randn(4)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(4), drawn)
