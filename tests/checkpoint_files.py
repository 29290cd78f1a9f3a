"""Writes checkpoints the way the dialects do, for the tests of reading them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fastvoc.models.bigvgan import BigVgan, BigVganConfig
from fastvoc.models.families import build
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.kokoro_config import KokoroConfig
from fastvoc.models.nsf_hifigan import NsfHifiGanConfig
from fastvoc.models.univnet import UnivNet, UnivNetConfig
from fastvoc.ops.snake_aa import kaiser_sinc

DATA = Path(__file__).parent / "data"
UPSTREAM = Path(__file__).parent / "checkpoints" / "upstream"
V1_SIZES = {
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
}
SMALL = HifiGanConfig(
    num_mels=6,
    upsample_rates=(4, 2),
    upsample_kernel_sizes=(8, 4),
    upsample_initial_channel=8,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 2), (1, 3)),
)


def random_state(config: Any, seed: int = 0) -> dict[str, Tensor]:
    """A folded state with the model's own names; the statistics, if any, are usable ones."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.1
        for name, tensor in build(config).state_dict().items()
    }
    if getattr(config, "normalize_before", False):
        state["scale"] = state["scale"].abs() + 1
    return state


def unfolded(state: Mapping[str, Tensor], form: str = "weight_g") -> dict[str, Tensor]:
    """The same weights as weight norm: v is a multiple of w that g undoes. `form` as torch names it, old or new."""
    names = ("weight_g", "weight_v") if form == "weight_g" else ("parametrizations.weight.original{}",) * 2
    pairs = {}
    for name, tensor in state.items():
        if not name.endswith(".weight"):
            pairs[name] = tensor
            continue
        module = name.removesuffix("weight")
        pairs[module + names[0].format(0)] = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
        pairs[module + names[1].format(1)] = tensor * 3
    return pairs


def jik_config(config: HifiGanConfig, **changes: Any) -> dict[str, Any]:
    """The published config.json of a configuration."""
    names = ("upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "resblock", "num_mels")
    values = {name: getattr(config, name) for name in (*names, "resblock_kernel_sizes", "resblock_dilation_sizes")}
    audio = {"sampling_rate": config.sample_rate, "n_fft": 1024, "win_size": 1024, "hop_size": config.hop}
    return {**values, **audio, "fmin": 0, "fmax": None, **changes}


def write_jik(
    folder: Path,
    state: Mapping[str, Tensor],
    config: HifiGanConfig = SMALL,
    *,
    wrap: bool = True,
    save: Callable[..., None] = torch.save,
    **changes: Any,
) -> Path:
    """A generator file g_00000000 with config.json beside it; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(jik_config(config, **changes)))
    path = folder / "g_00000000"
    save({"generator": dict(state)} if wrap else dict(state), path)
    return path


VITS = HifiGanConfig(
    sample_rate=16000,
    num_mels=6,
    upsample_rates=(8, 8, 4),
    upsample_kernel_sizes=(16, 16, 8),
    upsample_initial_channel=8,
    resblock="2",
    resblock_kernel_sizes=(3, 5, 7),
    resblock_dilation_sizes=((1, 2), (2, 6), (3, 12)),
    post_bias=False,
    latent=True,
    gin_channels=4,
    num_speakers=3,
)
VITS_1 = replace(
    VITS,
    upsample_rates=(8, 8, 2, 2),
    upsample_kernel_sizes=(16, 16, 4, 4),
    upsample_initial_channel=16,
    resblock="1",
    resblock_kernel_sizes=(3, 7, 11),
    resblock_dilation_sizes=((1, 3, 5),) * 3,
)
_VITS_SHAPE = ("upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "resblock_kernel_sizes")


def write_vits(
    folder: Path, dialect: str, config: HifiGanConfig = VITS, state: Mapping[str, Tensor] | None = None
) -> Path:
    """A whole VITS as a dialect has it, of whose other parts there is one tensor: transformers, vits, piper, coqui."""
    shape = {name: getattr(config, name) for name in (*_VITS_SHAPE, "resblock_dilation_sizes")}
    rate, kind = config.sample_rate, config.resblock
    decoder, speakers, fields = {
        "transformers": ("decoder.", "embed_speaker", {"model_type": "vits", "sampling_rate": rate, **shape}),
        "vits": ("dec.", "emb_g", {"model": {"resblock": kind, **shape}, "data": {"sampling_rate": rate}}),
        "piper": ("model_g.dec.", "model_g.emb_g", {"audio": {"sample_rate": rate, "quality": "medium"}}),
        "coqui": ("waveform_decoder.", "emb_g", {"model": "vits", "audio": {"sample_rate": rate}}),
    }[dialect]
    if dialect == "coqui":
        arguments = {f"{name}_decoder": value for name, value in shape.items()}
        fields["model_args"] = {"resblock_type_decoder": kind, **arguments}
    tensors = {"enc_p.emb.weight": torch.zeros(3, 2)}
    for name, tensor in (random_state(config) if state is None else state).items():
        if dialect == "transformers":
            name = name.replace("ups.", "upsampler.")
        if dialect == "coqui":
            name = name.replace("cond.", "cond_layer.")
        tensors[f"{speakers}.weight" if name == "emb_g.weight" else f"{decoder}{name}"] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if dialect == "transformers":
        save_file(tensors, folder / "model.safetensors")
    elif dialect == "piper":
        torch.save({"state_dict": tensors, "hyper_parameters": {"num_speakers": 3}}, folder / "epoch=1-step=2.ckpt")
    else:
        torch.save({"model": tensors, "iteration": 2, "learning_rate": 0.1}, folder / f"{dialect}.pth")
    return folder


XTTS = replace(VITS_1, sample_rate=24000, num_speakers=0, conds=True)
SOVITS = replace(VITS_1, sample_rate=32000, num_speakers=0, upsample_kernel_sizes=(16, 16, 2, 2))


def write_xtts(folder: Path, state: Mapping[str, Tensor] | None = None, *, prefix: str = "") -> Path:
    """A whole XTTS, of whose other parts there is one tensor each."""
    decoder = f"{prefix}hifigan_decoder."
    tensors = {f"{prefix}gpt.x": torch.zeros(2), f"{decoder}speaker_encoder.conv1.weight": torch.zeros(3, 1, 3, 3)}
    for name, tensor in (random_state(XTTS) if state is None else state).items():
        tensors[f"{decoder}waveform_decoder.{name.replace('cond.', 'cond_layer.')}"] = tensor
    arguments = {"output_sample_rate": XTTS.sample_rate, "decoder_input_dim": XTTS.num_mels}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model": "xtts", "model_args": arguments}))
    torch.save({"config": {"model_args": arguments}, "model": tensors}, folder / "model.pth")
    return folder / "model.pth"


def write_sovits(folder: Path, state: Mapping[str, Tensor] | None = None, **changes: Any) -> Path:
    """A GPT-SoVITS voice, in half precision, its configuration in the file."""
    tensors = {"enc_p.text_embedding.weight": torch.zeros(3, 2)}
    tensors |= {f"dec.{name}": t for name, t in (random_state(SOVITS) if state is None else state).items()}
    names = (*_VITS_SHAPE, "resblock", "resblock_dilation_sizes")
    shape = {name: value for name in names if (value := getattr(SOVITS, name)) is not None}
    config = {"model": {**shape, **changes}, "data": {"sampling_rate": SOVITS.sample_rate}}
    half = {name: tensor.half() for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": half, "config": config, "info": "8epoch_200iteration"}, folder / "voice.pth")
    return folder / "voice.pth"


RVC = NsfHifiGanConfig(
    sample_rate=40000,
    num_mels=6,
    upsample_rates=(5, 4, 2),
    upsample_kernel_sizes=(11, 8, 4),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3, 5),) * 2,
    post_bias=False,
    latent=True,
    gin_channels=4,
    num_speakers=3,
)


def rvc_values(config: HifiGanConfig, rate: int | str) -> list[Any]:
    """The list in an RVC voice: values of its constructor, of which the generator is built."""
    head = [1025, 32, config.num_mels, config.num_mels, 768, 2, 6, 3, 0]
    generator = [getattr(config, name) for name in ("resblock", "resblock_kernel_sizes", "resblock_dilation_sizes")]
    ups = [getattr(config, f"upsample_{name}") for name in ("rates", "initial_channel", "kernel_sizes")]
    return [*head, *generator, *ups, config.num_speakers, config.gin_channels, rate]


def write_rvc(
    folder: Path,
    built: HifiGanConfig = RVC,
    state: Mapping[str, Tensor] | None = None,
    *,
    rate: int | str = 40000,
    config: Any = None,
) -> Path:
    """An RVC voice, weights in half precision, of whose other parts there is one tensor; `config`: another list."""
    tensors = {"enc_p.emb_phone.weight": torch.zeros(3, 2)}
    for name, tensor in (random_state(built) if state is None else state).items():
        if name.startswith("m_source."):
            name = name.replace("m_source.", "m_source.l_linear.")
            tensor = tensor[None] if name.endswith("weight") and tensor.dim() == 1 else tensor
        tensors[name if name.startswith("emb_g.") else f"dec.{name}"] = tensor
    half = {name: tensor.half() for name, tensor in tensors.items()}
    values = rvc_values(built, rate) if config is None else config
    folder.mkdir(parents=True, exist_ok=True)
    voice = {"weight": half, "config": values, "info": "20epoch", "sr": "40k", "f0": 1, "version": "v2"}
    torch.save(voice, folder / "voice.pth")
    return folder / "voice.pth"


KOKORO = KokoroConfig(
    num_mels=20,
    style_dim=24,
    channels=28,
    asr_channels=8,
    upsample_initial_channel=24,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3, 5), (1, 2)),
)


def write_kokoro(
    folder: Path,
    state: Mapping[str, Tensor] | None = None,
    *,
    norms: bool = False,
    wrapped: bool = True,
    whole: bool = True,
) -> Path:
    """The file of a whole Kokoro of KOKORO's shape, weight norm as in training, and its configuration.

    norms: with the norms' own scales and shifts; wrapped: names of a wrapped module; whole: with the other parts, of
    which there is one tensor, else the decoder alone.
    """
    tensors = {}
    for name, tensor in (random_state(KOKORO) if state is None else state).items():
        if ".norm." in name and not norms:
            continue
        name = re.sub(r"\.adain([12])\.(\d+)\.snake\.alpha$", r".alpha\1.\2", name)
        if name.startswith("m_source."):
            name, tensor = name.replace("m_source.", "m_source.l_linear."), tensor[None]
            tensor = tensor if name.endswith("weight") else tensor[0]
        if ".alpha" in name:
            tensor = tensor[None, :, None]
        if not name.startswith(("encode.", "decode.", "F0_conv.", "N_conv.", "asr_res.", "other.")):
            name = f"generator.{name}"
        pair = tensor.dim() == 3 and name.endswith(".weight") and "noise_convs" not in name
        parts = {name: tensor}
        if pair:
            norm = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            parts = {f"{name}_g": norm, f"{name}_v": 2 * tensor}
        tensors |= {f"module.{n}" if wrapped else n: t for n, t in parts.items()}
    names = ("rates", "kernel_sizes", "initial_channel")
    shape = {f"upsample_{name}": getattr(KOKORO, f"upsample_{name}") for name in names}
    shape |= {name: getattr(KOKORO, name) for name in ("resblock_kernel_sizes", "resblock_dilation_sizes")}
    text = {"istftnet": {**shape, "gen_istft_n_fft": KOKORO.n_fft, "gen_istft_hop_size": KOKORO.istft_hop}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**text, "hidden_dim": KOKORO.num_mels, "style_dim": 24}))
    tree = {"bert": {"module.x": torch.zeros(2)}, "decoder": tensors} if whole else tensors
    torch.save(tree, folder / "kokoro-v1_0.pth")
    return folder / "kokoro-v1_0.pth"


def upstream_list(name: str) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes as the upstream package made them."""
    lines = (UPSTREAM / f"{name}.txt").read_text().splitlines()[1:]
    return {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}


def random_upstream(name: str) -> dict[str, Tensor]:
    """Random tensors with the names and shapes of an upstream list."""
    generator = torch.Generator().manual_seed(5)
    return {key: torch.randn(shape, generator=generator) for key, shape in upstream_list(name).items()}


def canonical_name(name: str, blocks: int = 3) -> str:
    """An upstream name in the words of `HifiGan`, by rules of its own, weight-norm suffix kept."""
    name = re.sub(r"^input_conv", "conv_pre", name)
    name = re.sub(r"^output_conv\.1", "conv_post", name)
    name = re.sub(r"^upsamples\.(\d+)\.1", r"ups.\1", name)
    name = re.sub(r"^blocks\.(\d+)\.(convs\d)\.(\d+)\.1", r"resblocks.\1.\2.\3", name)
    name = re.sub(r"\.conv\.", ".", name)
    return re.sub(r"^resblocks\.(\d+)\.(\d+)\.", lambda m: f"resblocks.{int(m[1]) * blocks + int(m[2])}.", name)


BIGVGAN_FIELDS = {
    "resblock": "1",
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "num_mels": 6,
    "sampling_rate": 16000,
    "n_fft": 64,
    "win_size": 64,
    "hop_size": 8,
    "fmin": 0,
    "fmax": None,
}


def bigvgan_upstream(change: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration, and a random state under upstream's names with folded weights and the filters."""
    values = {**BIGVGAN_FIELDS, **(change or {})}
    names = set(BigVganConfig.__dataclass_fields__)
    config = BigVganConfig(sample_rate=16000, **{k: v for k, v in values.items() if k in names})
    state = {}
    for name, tensor in BigVgan(config).state_dict().items():
        parts = name.split(".")
        if parts[0] == "ups":
            parts.insert(2, "0")
        if parts[-1] in ("alpha", "beta"):
            owner = ".".join(parts[:-1])
            state[f"{owner}.upsample.filter"] = kaiser_sinc()[None, None].clone()
            state[f"{owner}.downsample.lowpass.filter"] = kaiser_sinc()[None, None].clone()
            parts.insert(-1, "act")
        state[".".join(parts)] = torch.randn_like(tensor) * 0.1
    return values, state


def write_bigvgan(
    folder: Path, values: dict[str, Any], state: dict[str, Tensor], name: str = "bigvgan_generator.pt"
) -> Path:
    """BigVGAN's two files."""
    (folder / "config.json").write_text(json.dumps(values))
    torch.save({"generator": state}, folder / name)
    return folder


def write_univnet(folder: Path) -> Path:
    """The files of Transformers' `UnivNetModel`, small, with random weights, and its extractor's."""
    sizes = {"model_in_channels": 3, "model_hidden_channels": 2, "num_mel_bins": 4, "kernel_predictor_num_blocks": 1}
    sizes["kernel_predictor_hidden_channels"] = 3
    lists = {
        "resblock_kernel_sizes": [3],
        "resblock_stride_sizes": [4],
        "resblock_dilation_sizes": [[1, 3]],
    }
    names = {"num_mel_bins": "num_mels"}
    model = UnivNet(UnivNetConfig(**{names.get(name, name): value for name, value in {**sizes, **lists}.items()}))
    config = {"model_type": "univnet", "leaky_relu_slope": 0.2, "kernel_predictor_conv_size": 3, **sizes, **lists}
    (folder / "config.json").write_text(json.dumps(config))
    front = {"sampling_rate": 16000, "hop_length": 4, "win_length": 16, "filter_length": 16, "fmin": 0, "fmax": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(front))
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    return folder
