"""ParallelWaveGAN (github.com/kan-bayashi/ParallelWaveGAN) and ESPnet's joint text2wav models.

`checkpoint-Nsteps.pkl` with `config.yml` and the feature statistics `stats.h5` or `stats.npy` beside it, or an ESPnet
`*.pth` with `config.yaml`. The generator takes normalised log-mels; with the statistics at hand, it normalises.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, make_config, make_mel, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.statistics import read_statistics
from fastvoc.checkpoints.text import Fields
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import MelConfig

_PWG, _ESPNET, _BARE = "model.generator.", "tts.generator.vocoder.", ""
_PREFIXES = (_PWG, _ESPNET, _BARE)
_ESPNET_RATE = 22050
_STATISTICS = ("stats.npy", "stats.h5")
_RULES = (
    (re.compile(r"^input_conv\."), "conv_pre."),
    (re.compile(r"^output_conv\.1\."), "conv_post."),
    (re.compile(r"^upsamples\.(\d+)\.1\."), r"ups.\1."),
    (re.compile(r"^blocks\.(\d+)\.(convs[12])\.(\d+)\.1\."), r"resblocks.\1.\2.\3."),
)


def detect(source: Source) -> bool:
    return any(name.startswith(tuple(f"{p}input_conv." for p in _PREFIXES)) for name in source.entries)


def load(source: Source) -> Checkpoint:
    prefix = next(p for p in _PREFIXES if any(n.startswith(f"{p}input_conv.") for n in source.entries))
    top = source.yaml("config.yml", "config.yaml")
    espnet = prefix == _ESPNET
    generator = _espnet_generator(top) if espnet else _pwg_generator(top)
    statistics = None if espnet else _statistics(source)
    pairs = generator.flag("use_additional_convs", True)

    def canonical(name: str) -> str:
        for pattern, target in _RULES:
            name = pattern.sub(target, name)
        return name if pairs else name.replace(".convs1.", ".convs.")

    tensors = renamed(source, source.with_prefix(prefix), canonical)
    rate, origins = _espnet_rate(top) if espnet else (top.integer("sampling_rate"), {})
    rates = generator.integers("upsample_scales", (8, 8, 2, 2))
    config = make_config(
        top.path,
        sample_rate=rate,
        num_mels=generator.integer("in_channels", 80),
        upsample_rates=rates,
        upsample_kernel_sizes=generator.integers("upsample_kernel_sizes", (16, 16, 4, 4)),
        upsample_initial_channel=generator.integer("channels", 512),
        resblock="1" if pairs else "2",
        resblock_kernel_sizes=generator.integers("resblock_kernel_sizes", (3, 7, 11)),
        resblock_dilation_sizes=generator.rows("resblock_dilations", ((1, 3, 5),) * 3),
        upsample_paddings=tuple(u // 2 + u % 2 for u in rates),
        upsample_output_paddings=tuple(u % 2 for u in rates),
        leaky_relu_slope=_slope(generator),
        pre_kernel_size=generator.integer("kernel_size", 7),
        post_kernel_size=generator.integer("kernel_size", 7),
        post_bias="conv_post.bias" in tensors,
        normalize_before=statistics is not None,
        # Without statistics the generator's input is normalised by whatever made it, which is no front end of ours.
        mel=_pwg_mel(top) if statistics is not None else None,
    )
    if not generator.flag("bias", True):
        # Absent biases are zero ones; ESPnet's switch concerns the residual blocks alone.
        tensors.update(_zero_biases(config, "resblocks." if espnet else ""))
    tensors.pop("mean", None)  # a file saved after registering the statistics holds them, too
    tensors.pop("scale", None)
    if statistics is not None:
        for name, value in zip(("mean", "scale"), statistics, strict=True):
            tensors[name] = _constant(name, value)
    state = canonical_state(source, config, tensors)
    dialect = "espnet" if espnet else "parallel_wavegan"
    return Checkpoint(config, state, dialect, {"container": source.container}, origins=origins)


def _espnet_rate(top: Fields) -> tuple[int, dict[str, Origin]]:
    """Upstream's class has a default rate, which training at another does not change."""
    conf = top.sub("tts_conf")
    features = top.sub("feats_extract_conf") if "feats_extract_conf" in top else Fields({}, top.path)
    if "sampling_rate" in conf:
        return conf.integer("sampling_rate"), {}
    if "fs" in features:
        return features.integer("fs"), {}
    why = f"{top.path.name} has neither tts_conf.sampling_rate, whose default this is, nor feats_extract_conf.fs"
    return _ESPNET_RATE, {"sample_rate": Origin("assumed", why)}


def _pwg_generator(top: Fields) -> Fields:
    kind = top.text("generator_type", "ParallelWaveGANGenerator")
    if kind != "HiFiGANGenerator":
        raise refuse(top.path, f"generator_type {kind!r}, expected 'HiFiGANGenerator'")
    generator = top.sub("generator_params")
    # The published recipes carry this misspelling, which upstream accepts.
    values = {k.replace("kernal", "kernel") if isinstance(k, str) else k: v for k, v in generator.values.items()}
    return _supported(Fields(values, top.path, "generator_params."))


def _espnet_generator(top: Fields) -> Fields:
    conf = top.sub("tts_conf")
    kind = conf.text("vocoder_type", "hifigan_generator")
    if kind != "hifigan_generator":
        raise refuse(top.path, f"vocoder_type {kind!r}, expected 'hifigan_generator'")
    if conf.flag("use_pqmf", False):
        raise refuse(top.path, "use_pqmf: multi-band generators are not supported")
    values = dict(conf.values.get("vocoder_params") or {})
    if "odim" in top:
        values["in_channels"] = top.integer("odim")
    return _supported(Fields(values, top.path, "tts_conf.vocoder_params."))


def _supported(generator: Fields) -> Fields:
    if generator.integer("out_channels", 1) != 1:
        raise refuse(generator.path, "out_channels above 1: multi-band generators are not supported")
    if generator.flag("use_causal_conv", False):
        raise refuse(generator.path, "use_causal_conv: causal generators are not supported")
    activation = generator.text("nonlinear_activation", "LeakyReLU")
    if activation != "LeakyReLU":
        raise refuse(generator.path, f"nonlinear_activation {activation!r}, expected 'LeakyReLU'")
    return generator


def _slope(generator: Fields) -> float:
    if "nonlinear_activation_params" not in generator:
        return 0.1
    # An empty mapping leaves the slope to torch.nn.LeakyReLU.
    return generator.sub("nonlinear_activation_params").number("negative_slope", 0.01)


def _statistics(source: Source) -> tuple[Tensor, Tensor] | None:
    for name in _STATISTICS:
        if source.has(name):
            return read_statistics(source.path.parent / name)
    kept = [source.with_prefix(p).get(n) for p in (_PWG, _BARE) for n in ("mean", "scale")]
    mean, scale = next((pair for pair in (kept[:2], kept[2:]) if all(pair)), (None, None))
    return None if mean is None or scale is None else (mean.read().float(), scale.read().float())


def _zero_biases(config: HifiGanConfig, prefix: str) -> dict[str, TensorEntry]:
    return {
        name: _constant(name, torch.zeros(shape, dtype=torch.float32, device="cpu"))
        for name, shape in config.tensors()
        if name.startswith(prefix) and name.endswith(".bias")
    }


def _constant(name: str, value: Tensor) -> TensorEntry:
    return TensorEntry(name, tuple(value.shape), value.dtype, lambda: value)


def _pwg_mel(top: Fields) -> MelConfig | None:
    if top.number("global_gain_scale", 1.0) != 1.0 or top.text("window", "hann") != "hann":
        return None
    return make_mel(
        top.path,
        sample_rate=top.integer("sampling_rate"),
        n_fft=top.integer("fft_size"),
        win_length=top.integer("win_length", top.integer("fft_size")),
        hop_length=top.integer("hop_size"),
        n_mels=top.integer("num_mels"),
        f_min=top.number("fmin", 0.0),
        f_max=top.optional_number("fmax"),
        log="log10",
        floor=1e-10,
        magnitude_eps=0.0,
        pad="center",
    )
