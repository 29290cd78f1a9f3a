"""Coqui TTS (github.com/idiap/coqui-ai-TTS): the HiFi-GAN of `{"model": ...}`, alone or as the `model_g` of a GAN."""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, make_config, make_mel, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.sound.mel import MelConfig

_PREFIXES = ("model.model_g.", "model.")
_AMPLITUDE_FLOOR = 1e-8


def detect(source: Source) -> bool:
    return any(name.startswith(tuple(f"{p}conv_pre." for p in _PREFIXES)) for name in source.entries)


def load(source: Source) -> Checkpoint:
    fields = source.json_with_comments("config.json")
    kind = fields.text("generator_model")
    if kind != "hifigan_generator":
        raise refuse(fields.path, f"generator_model {kind!r}, expected 'hifigan_generator'")
    generator, audio = fields.sub("generator_model_params"), fields.sub("audio")
    prefix = next(p for p in _PREFIXES if any(n.startswith(f"{p}conv_pre.") for n in source.entries))
    tensors = source.with_prefix(prefix)
    config = make_config(
        fields.path,
        sample_rate=audio.integer("sample_rate"),
        num_mels=audio.integer("num_mels"),
        upsample_rates=generator.integers("upsample_factors"),
        upsample_kernel_sizes=generator.integers("upsample_kernel_sizes"),
        upsample_initial_channel=generator.integer("upsample_initial_channel"),
        resblock="1" if generator.values.get("resblock_type") == "1" else "2",
        resblock_kernel_sizes=generator.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=generator.rows("resblock_dilation_sizes"),
        post_bias=generator.flag("conv_post_bias", "conv_post.bias" in tensors),
        mel=_mel(audio),
    )
    state = canonical_state(source, config, tensors)
    return Checkpoint(config, state, "coqui", {"container": source.container})


def _mel(audio: Fields) -> MelConfig | None:
    plain = (
        not audio.flag("signal_norm", True)
        and audio.number("spec_gain", 20) == 1
        and audio.flag("do_amp_to_db_mel", True)
        and not audio.number("preemphasis", 0)
        and not audio.flag("do_sound_norm", False)
        and not audio.flag("do_rms_norm", False)
        and audio.text("stft_pad_mode", "reflect") == "reflect"
    )
    if not plain or "hop_length" not in audio:
        return None
    return make_mel(
        audio.path,
        sample_rate=audio.integer("sample_rate"),
        n_fft=audio.integer("fft_size"),
        win_length=audio.integer("win_length"),
        hop_length=audio.integer("hop_length"),
        n_mels=audio.integer("num_mels"),
        f_min=audio.number("mel_fmin", 0.0),
        f_max=audio.optional_number("mel_fmax"),
        log="ln" if audio.text("log_func", "np.log10") == "np.log" else "log10",
        floor=_AMPLITUDE_FLOOR,
        magnitude_eps=0.0,
        pad="center",
    )
