"""The generators of CosyVoice and Chatterbox, used as their own code uses them."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import fastvoc
from fastvoc.compat import chatterbox, cosyvoice
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from helpers import GoldenCase, assert_golden, golden, implementations

IMPLS = implementations("nsf_source")
CLASSES: dict[str, Any] = {
    "chatterbox_hift": chatterbox.HiFTGenerator,
    "cosyvoice1_hift": cosyvoice.HiFTGenerator,
    "cosyvoice2_hift": cosyvoice.HiFTGenerator,
    "cosyvoice3_causal_hift": cosyvoice.CausalHiFTGenerator,
}
each_impl = pytest.mark.parametrize("impl", IMPLS)
each_case = pytest.mark.parametrize("name", CLASSES)


class _Loader(yaml.SafeLoader):
    """Reads the YAML of CosyVoice without its classes."""


def _plain(loader: Any, suffix: str, node: Any) -> Any:
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else node.value


_Loader.add_multi_constructor("!", _plain)


def make(name: str, case: GoldenCase) -> Any:
    """A generator made of the values in the case's configuration, as HyperPyYAML would make it."""
    if name == "chatterbox_hift":
        values = yaml.safe_load((case.dir / "config.json").read_text())
    else:
        top = yaml.load((case.dir / "config.yaml").read_text(), Loader=_Loader)
        values = {**top["hift"], "sampling_rate": top["sample_rate"]}
    predictor: Any = cosyvoice.CausalConvRNNF0Predictor if "causal" in name else cosyvoice.ConvRNNF0Predictor
    return CLASSES[name](**{**values, "f0_predictor": predictor(**values["f0_predictor"])})


def published_state(name: str, case: GoldenCase) -> dict[str, Tensor]:
    """The state dict as upstream's code hands it to `load_state_dict`."""
    if name == "chatterbox_hift":
        state = load_file(case.dir / "s3gen.safetensors")
        return {key.removeprefix("mel2wav."): t for key, t in state.items() if key.startswith("mel2wav.")}
    state = torch.load(case.dir / "hift.pt", map_location="cpu", weights_only=True)
    return {key.replace("generator.", ""): tensor for key, tensor in state.items()}


def loaded(name: str) -> tuple[GoldenCase, Any]:
    case = golden(name)
    generator = make(name, case)
    generator.load_state_dict(published_state(name, case), strict=True)
    return case, generator.to("cpu").eval()


def test_a_mel_of_100_frames_gives_48000_samples() -> None:
    from fastvoc.compat.cosyvoice import ConvRNNF0Predictor, HiFTGenerator

    hift = HiFTGenerator(
        sampling_rate=24000,
        upsample_rates=[8, 5, 3],
        upsample_kernel_sizes=[16, 11, 7],
        source_resblock_kernel_sizes=[7, 7, 11],
        source_resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        f0_predictor=ConvRNNF0Predictor(),
    ).eval()
    tts_speech, tts_source = hift.inference(speech_feat=torch.randn(1, 80, 100), cache_source=torch.zeros(1, 1, 0))
    assert tts_speech.shape == (1, 48000)
    assert tts_source.shape == (1, 1, 48000)


@pytest.mark.golden
@each_impl
@each_case
def test_golden(name: str, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case, hift = loaded(name)
    mel = case.inputs["mel"]
    with torch.inference_mode():
        assert_golden(hift.f0_predictor(mel), case, "f0")
        source = case.inputs.get("source", case.outputs.get("source"))
        assert_golden(hift.decode(x=mel, s=source), case, "wav")
        if name != "cosyvoice3_causal_hift":
            for kind in ("seeded", "cached"):
                assert_golden(hift.decode(mel, case.outputs[f"source_{kind}"]), case, f"wav_{kind}")
            return
        f0 = hift.f0_predictor(mel, finalize=False)
        assert_golden(f0, case, "f0_streaming")
        wav = hift.decode(mel[:, :, :-3], case.outputs["source_streaming"], finalize=False)
        assert_golden(wav, case, "wav_streaming")


@pytest.mark.golden
@pytest.mark.parametrize("name", ["chatterbox_hift", "cosyvoice1_hift", "cosyvoice2_hift"])
def test_inference_and_its_cache(name: str) -> None:
    case, hift = loaded(name)
    mel, cache = case.inputs["mel"], case.inputs["cache_source"]
    torch.manual_seed(5)
    wav, source = hift.inference(speech_feat=mel)
    assert wav.shape == case.outputs["wav_seeded"].shape
    assert source.shape == case.outputs["source_seeded"].shape
    torch.testing.assert_close(hift.decode(mel, source), wav, rtol=0, atol=1e-5)
    again, _ = hift.inference(mel, None)
    assert not torch.equal(again, wav)
    torch.manual_seed(5)
    again, _ = hift.inference(mel, torch.zeros(1, 1, 0))
    torch.testing.assert_close(again, wav, rtol=0, atol=1e-5)

    wav, continued = hift.inference(speech_feat=mel, cache_source=cache)
    assert torch.equal(continued[:, :, : cache.shape[2]], cache)
    torch.testing.assert_close(hift.decode(mel, continued), wav, rtol=0, atol=1e-5)
    one, continued = hift.inference(speech_feat=mel, cache_source=cache[:1])
    assert one.shape == wav.shape
    assert torch.equal(continued[-1:, :, : cache.shape[2]], cache[:1])


@pytest.mark.golden
@each_impl
def test_causal_prefixes_agree(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case, hift = loaded("cosyvoice3_causal_hift")
    mel = case.inputs["mel"]
    whole, source = hift.inference(speech_feat=mel)
    assert (whole.shape, source.shape) == ((1, 8640), (1, 1, 8640))
    begun, source = hift.inference(speech_feat=mel, finalize=False)
    assert (begun.shape, source.shape) == ((1, 4800), (1, 1, 7200))
    torch.testing.assert_close(begun, whole[:, :4800], rtol=0, atol=1e-4)
    begun, _ = hift.inference(mel[:, :, :11], finalize=False)
    torch.testing.assert_close(begun, whole[:, : 3 * 480], rtol=0, atol=1e-4)
    if impl == "cpp":
        with fastvoc.use_exact():
            whole, _ = hift.inference(mel)
            begun, _ = hift.inference(mel, finalize=False)
        assert torch.equal(begun, whole[:, :4800])


@pytest.mark.golden
@each_case
def test_state_dicts_go_both_ways(name: str) -> None:
    case, hift = loaded(name)
    state = hift.state_dict()
    ours = {key.replace(".parametrizations.weight.original1", ".weight") for key in published_state(name, case)}
    ours = {key.replace(".weight_v", ".weight") for key in ours}
    assert set(state) == {key for key in ours if not key.endswith(("original0", "weight_g"))}
    assert state["m_source.l_linear.weight"].shape == (1, 9)
    twin = make(name, case)
    twin.load_state_dict(state)
    source = case.inputs.get("source", case.outputs.get("source"))
    mel = case.inputs["mel"]
    with torch.inference_mode():
        assert torch.equal(twin.eval().decode(mel, source), hift.decode(mel, source))
    del state["resblocks.3.activations2.1.alpha"]
    with pytest.raises(RuntimeError, match=r"Missing key.*resblocks\.3\.activations2\.1\.alpha"):
        twin.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*stray"):
        twin.load_state_dict({**hift.state_dict(), "stray": torch.ones(1)})


@pytest.mark.golden
def test_as_a_part_of_another_module() -> None:
    case = golden("chatterbox_hift")

    class S3Gen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mel2wav = make("chatterbox_hift", case)

    s3gen = S3Gen()
    result = s3gen.load_state_dict(load_file(case.dir / "s3gen.safetensors"), strict=False)
    assert not result.missing_keys
    assert all(not key.startswith("mel2wav.") for key in result.unexpected_keys)
    s3gen.eval()
    with torch.inference_mode():
        wav = s3gen.mel2wav.decode(case.inputs["mel"], case.inputs["source"])
    assert_golden(wav, case, "wav")
    assert "mel2wav.m_source.l_linear.weight" in s3gen.state_dict()


@pytest.mark.golden
@each_case
def test_from_pretrained(name: str, tmp_path: Path) -> None:
    case = golden(name)
    hift = CLASSES[name].from_pretrained(case.dir)
    source = case.inputs.get("source", case.outputs.get("source"))
    with torch.inference_mode():
        assert_golden(hift.decode(case.inputs["mel"], source), case, "wav")
    assert not any(parameter.requires_grad for parameter in hift.parameters())
    fastvoc.save(fastvoc.load(case.dir), tmp_path / "saved.safetensors")
    again = CLASSES[name].from_pretrained(tmp_path / "saved.safetensors")
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in hift.state_dict().items())
    for other in {cosyvoice.HiFTGenerator, cosyvoice.CausalHiFTGenerator, chatterbox.HiFTGenerator}:
        if name == "cosyvoice1_hift" and other is chatterbox.HiFTGenerator:
            continue  # the same but for its arguments
        if other is not CLASSES[name]:
            with pytest.raises(LoadError, match="another generator than"):
                other.from_pretrained(case.dir)


@pytest.mark.golden
def test_from_pretrained_refuses_other_models(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="a hifigan model, expected hiftnet"):
        cosyvoice.HiFTGenerator.from_pretrained(golden("hifigan_v1_small").dir)
    with pytest.raises(LoadError, match="source 'frame_linear', expected 'sample'"):
        cosyvoice.HiFTGenerator.from_pretrained(golden("hiftnet_original").dir)
    with pytest.raises(LoadError, match="no such file or folder"):
        cosyvoice.HiFTGenerator.from_pretrained(tmp_path / "nothing")
    shutil.copy(golden("cosyvoice2_hift").dir / "hift.pt", tmp_path)
    with pytest.raises(LoadError, match="is missing"):
        cosyvoice.HiFTGenerator.from_pretrained(tmp_path)


def test_another_package_s_predictor_is_taken_with_its_weights() -> None:
    class Predictor(nn.Module):
        """Named as CosyVoice's."""

        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for i in range(5):
                conv = nn.Conv1d(12 if i else 80, 12, 3, padding=1)
                layers += [nn.utils.parametrizations.weight_norm(conv), nn.ELU()]
            self.condnet = nn.Sequential(*layers)
            self.classifier = nn.Linear(12, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.condnet(x).transpose(1, 2)).squeeze(-1).abs()

    theirs = Predictor()
    hift = cosyvoice.HiFTGenerator(base_channels=16, f0_predictor=theirs)
    mel = torch.randn(2, 80, 9)
    with torch.no_grad():
        torch.testing.assert_close(hift.f0_predictor(mel), theirs(mel))
    assert isinstance(hift.f0_predictor, cosyvoice.ConvRNNF0Predictor)


def test_training_step() -> None:
    hift = cosyvoice.HiFTGenerator(base_channels=16, f0_predictor=cosyvoice.ConvRNNF0Predictor(cond_channels=8))
    wav, f0 = hift({"speech_feat": torch.randn(2, 6, 80)}, "cpu")
    assert (wav.shape, f0.shape) == ((2, 6 * 256), (2, 6))
    (wav.square().mean() + f0.mean()).backward()
    silent = [name for name, p in hift.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_what_it_tells_and_copies() -> None:
    hift = cosyvoice.CausalHiFTGenerator(
        base_channels=16, sampling_rate=24000, conv_pre_look_right=2, upsample_rates=[4, 2], audio_limit=0.5
    )
    assert (hift.sampling_rate, hift.nb_harmonics, hift.audio_limit) == (24000, 8, 0.5)
    assert (hift.num_kernels, hift.num_upsamples, hift.conv_pre_look_right) == (3, 2, 2)
    assert hift.istft_params == {"n_fft": 16, "hop_len": 4}
    hift.remove_weight_norm()
    mel = torch.randn(1, 80, 12)
    wav, source = hift.eval().inference(mel)
    assert (wav.shape, source.shape) == ((1, 12 * 32), (1, 1, 12 * 32))
    twin = copy.deepcopy(hift)
    torch.testing.assert_close(twin.inference(mel)[0], wav, rtol=0, atol=1e-5)
    wav, source = hift.inference(mel, finalize=False)
    assert (wav.shape, source.shape) == ((1, 6 * 32), (1, 1, 9 * 32))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="num_class: expected 1"):
        cosyvoice.ConvRNNF0Predictor(num_class=2)
    with pytest.raises(ArgumentError, match="upsample_kernel_sizes"):
        cosyvoice.HiFTGenerator(upsample_kernel_sizes=[16])
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        cosyvoice.CausalHiFTGenerator(upsample_rate=[8])
    hift = cosyvoice.HiFTGenerator(base_channels=16, f0_predictor=cosyvoice.ConvRNNF0Predictor(cond_channels=8))
    mel = torch.randn(1, 80, 4)
    for error, text, arguments in (
        (ShapeError, "mel: expected", (mel[0],)),
        (ShapeError, "cache_source: expected", (mel, torch.zeros(1, 1, 4 * 256 + 1))),
        (ShapeError, "cache_source: expected", (mel, torch.zeros(2, 1, 4))),
        (ShapeError, "cache_source: expected", (mel, torch.zeros(1, 4))),
    ):
        with pytest.raises(error, match=text):
            hift.inference(*arguments)
    with pytest.raises(DtypeError, match="source: expected"):
        hift.decode(mel, torch.zeros(1, 1, 1024, dtype=torch.long))
