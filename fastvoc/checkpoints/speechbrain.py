"""SpeechBrain (github.com/speechbrain/speechbrain): `generator.ckpt` with `hyperparams.yaml` beside it.

Its convolutions pad by reflection. The YAML's `!new:` and `!ref` tags are read as data; only `!ref <name>` is followed.
"""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, make_config, make_mel
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.text import Fields
from fastvoc.hub.download import published
from fastvoc.sound.mel import MelConfig

_RECIPE_RATE = 22050
_FRONT_END = ("n_fft", "win_length", "hop_length", "mel_fmin", "mel_fmax")


def detect(source: Source) -> bool:
    return any(name.startswith("conv_pre.conv.") for name in source.entries)


def load(source: Source) -> Checkpoint:
    top = source.yaml("hyperparams.yaml", "train.yaml")
    generator = top.values.get("generator")
    values = {**top.values, **generator} if isinstance(generator, dict) else dict(top.values)
    fields = Fields(values, top.path, names=top.values)
    known = published(source.path, "hifigan")
    # The published inference files leave the rate and the front end to the recipe.
    rate = fields.integer("sample_rate", _RECIPE_RATE if known is None else known.sample_rate)
    tensors = renamed(source, source.entries, lambda name: name.replace(".conv.", ".", 1))
    config = make_config(
        fields.path,
        sample_rate=rate,
        num_mels=fields.integer("in_channels"),
        upsample_rates=fields.integers("upsample_factors"),
        upsample_kernel_sizes=fields.integers("upsample_kernel_sizes"),
        upsample_initial_channel=fields.integer("upsample_initial_channel"),
        resblock="1" if fields.get("resblock_type") == "1" else "2",
        resblock_kernel_sizes=fields.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=fields.rows("resblock_dilation_sizes"),
        post_bias=fields.flag("conv_post_bias", "conv_post.bias" in tensors),
        pad_mode="reflect",
        mel=_mel(fields, rate),
    )
    state = canonical_state(source, config, tensors)
    origins = _origins(fields, None if known is None else known.repo)
    return Checkpoint(config, state, "speechbrain", {"container": source.container}, origins=origins)


def _origins(fields: Fields, repo: str | None) -> dict[str, Origin]:
    absent = {"sample_rate": [] if "sample_rate" in fields else ["sample_rate"]}
    absent["mel"] = [name for name in _FRONT_END if name not in fields.values]
    why = f"{fields.path.name} has no {{}}, SpeechBrain's recipe for LJSpeech has it so"
    return {
        fact: Origin("name", repo) if repo else Origin("assumed", why.format(" and no ".join(names)))
        for fact, names in absent.items()
        if names
    }


def _mel(fields: Fields, rate: int) -> MelConfig:
    return make_mel(
        fields.path,
        sample_rate=rate,
        n_fft=fields.integer("n_fft", 1024),
        win_length=fields.integer("win_length", 1024),
        hop_length=fields.integer("hop_length", 256),
        n_mels=fields.integer("in_channels"),
        f_min=fields.number("mel_fmin", 0.0),
        f_max=fields.optional_number("mel_fmax", min(8000.0, rate / 2)),
        magnitude_eps=0.0,
        pad="center",
    )
