"""The decoder of a VITS, which makes waveforms of latents, out of a file of the whole model.

Folders of Transformers' `VitsModel`; generators of github.com/jaywalnut310/vits and its kin, such as MeloTTS and
GPT-SoVITS; Piper's training checkpoints; Coqui's `Vits`, and its XTTS, which has another latent. The other
tensors of the file, but for the table of speakers, are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, make_config, refuse
from fastvoc.checkpoints.hift_names import weight_shape
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.text import Fields
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V3

_SHAPE = (
    "upsample_rates",
    "upsample_kernel_sizes",
    "upsample_initial_channel",
    "resblock",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
)
_V1, _V3 = ({name: asdict(config)[name] for name in _SHAPE} for config in (HIFIGAN_V1, HIFIGAN_V3))


_Entries = Mapping[str, TensorEntry]
_Read = tuple[dict[str, Any], dict[str, Origin]]


class _Layout(NamedTuple):
    """Where a dialect has the decoder's tensors, its table of speakers, and what says how the decoder is built."""

    dialect: str
    decoder: str
    speakers: str
    read: Callable[[Source, _Entries], _Read]


def detect(source: Source) -> bool:
    return _layout(source) is not None


def load(source: Source) -> Checkpoint:
    layout = _layout(source)
    assert layout is not None
    tensors = renamed(source, source.with_prefix(layout.decoder), _renamed)
    values, origins = layout.read(source, tensors)
    gin = weight_shape(source.path, tensors, "cond", 3)[1] if any(n.startswith("cond.") for n in tensors) else 0
    if gin and layout.speakers in source.entries:
        tensors["emb_g.weight"] = source.entries[layout.speakers]
    config = make_config(
        source.path,
        num_mels=weight_shape(source.path, tensors, "conv_pre", 3)[1],
        post_bias="conv_post.bias" in tensors,
        latent=True,
        gin_channels=gin,
        conds=any(name.startswith("conds.0.") for name in tensors),
        num_speakers=weight_shape(source.path, tensors, "emb_g", 2)[0] if "emb_g.weight" in tensors else 0,
        mel=None,
        **values,
    )
    metadata = {"container": source.container}
    return Checkpoint(config, canonical_state(source, config, tensors), layout.dialect, metadata, origins=origins)


def _layout(source: Source) -> _Layout | None:
    starts = {name.partition("conv_pre.")[0] for name in source.entries if "conv_pre." in name}
    return next((layout for layout in _LAYOUTS if layout.decoder in starts), None)


def _renamed(name: str) -> str:
    return name.replace("upsampler.", "ups.", 1).replace("cond_layer.", "cond.", 1)


def _transformers(source: Source, _: _Entries) -> _Read:
    fields = source.json("config.json")
    if (model_type := fields.text("model_type")) != "vits":
        raise refuse(fields.path, f"model_type {model_type!r}, expected 'vits'")
    values = _generator(fields, _V1, "")
    values |= {"sample_rate": fields.integer("sampling_rate", 16000), "resblock": "1"}
    values["leaky_relu_slope"] = fields.number("leaky_relu_slope", 0.1)
    default = Origin("format", "the default of model_type vits")
    return values, {} if "sampling_rate" in fields else {"sample_rate": default}


def _original(source: Source, _: _Entries) -> _Read:
    fields = source.json("config.json")
    values = _generator(fields.sub("model"), {}, "")
    return {**values, "sample_rate": fields.sub("data").integer("sampling_rate")}, {}


def _coqui(source: Source, _: _Entries) -> _Read:
    fields = source.json_with_comments("config.json")
    if (model := fields.text("model")) != "vits":
        raise refuse(fields.path, f"model {model!r}, expected 'vits'")
    values = _generator(fields.sub("model_args"), _V1, "_decoder")
    return {**values, "sample_rate": fields.sub("audio").integer("sample_rate")}, {}


def _piper(source: Source, tensors: _Entries) -> _Read:
    """Piper's trainer knows two decoders, told apart by their blocks; its configuration has the rate alone."""
    values = dict(_V1 if "resblocks.0.convs1.0.bias" in tensors else _V3)
    values["upsample_initial_channel"] = weight_shape(source.path, tensors, "conv_pre", 3)[0]
    if source.has("config.json"):
        return {**values, "sample_rate": source.json("config.json").sub("audio").integer("sample_rate")}, {}
    why = "no config.json says it; that of the qualities medium and high"
    return {**values, "sample_rate": 22050}, {"sample_rate": Origin("assumed", why)}


def _xtts(source: Source, tensors: _Entries) -> _Read:
    """XTTS's generator has the shape of HiFi-GAN V1 always, and a speaker's vector in every stage."""
    values = dict(_V1)
    values["upsample_initial_channel"] = weight_shape(source.path, tensors, "conv_pre", 3)[0]
    if not source.has("config.json"):
        why = "no config.json says it; that of XTTS 1 and 2"
        return {**values, "sample_rate": 24000}, {"sample_rate": Origin("assumed", why)}
    fields = source.json_with_comments("config.json")
    if (model := fields.text("model")) != "xtts":
        raise refuse(fields.path, f"model {model!r}, expected 'xtts'")
    return {**values, "sample_rate": fields.sub("model_args").integer("output_sample_rate", 24000)}, {}


def _sovits(source: Source, _: _Entries) -> _Read:
    """GPT-SoVITS keeps its configuration in the file."""
    sections: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    for name, value in source.values.items():
        if len(place := name.split(".", 2)) == 3 and place[0] == "config" and place[1] in sections:
            sections[place[1]][place[2]] = value
    fields = Fields(sections, source.path, "config: ")
    values = _generator(fields.sub("model"), {}, "")
    return {**values, "sample_rate": fields.sub("data").integer("sampling_rate")}, {}


def _generator(fields: Fields, defaults: dict[str, Any], suffix: str) -> dict[str, Any]:
    """The decoder's shape in a section whose fields are called as HiFi-GAN's, but for a suffix."""

    def of(read: Callable[..., Any], name: str) -> Any:
        return read(f"{name}{suffix}", *([defaults[name]] if name in defaults else []))

    kind = "resblock_type" if suffix else "resblock"
    return {
        "upsample_rates": of(fields.integers, "upsample_rates"),
        "upsample_kernel_sizes": of(fields.integers, "upsample_kernel_sizes"),
        "upsample_initial_channel": of(fields.integer, "upsample_initial_channel"),
        # Upstream compares with the text "1"; anything else is its second kind of block.
        "resblock": "1" if fields.values.get(f"{kind}{suffix}", defaults.get("resblock")) == "1" else "2",
        "resblock_kernel_sizes": of(fields.integers, "resblock_kernel_sizes"),
        "resblock_dilation_sizes": of(fields.rows, "resblock_dilation_sizes"),
    }


_LAYOUTS = (
    _Layout("transformers", "decoder.", "embed_speaker.weight", _transformers),
    *(_Layout("vits", f"{p}dec.", f"{p}emb_g.weight", _original) for p in ("", "model.")),
    *(_Layout("piper", f"{p}dec.", f"{p}emb_g.weight", _piper) for p in ("model_g.", "state_dict.model_g.")),
    *(
        _Layout("xtts", f"{p}hifigan_decoder.waveform_decoder.", "", _xtts)
        for p in ("", "model.", "xtts.", "model.xtts.")
    ),
    _Layout("gpt-sovits", "weight.dec.", "weight.emb_g.weight", _sovits),
    *(_Layout("coqui", f"{p}waveform_decoder.", f"{p}emb_g.weight", _coqui) for p in ("", "model.")),
)
