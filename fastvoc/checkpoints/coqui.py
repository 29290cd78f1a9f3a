"""Coqui TTS (github.com/idiap/coqui-ai-TTS): the HiFi-GAN of `{"model": ...}`, alone or as the `model_g` of a GAN."""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, make_config, make_mel, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.mel import MelConfig

_PREFIXES = ("model.model_g.", "model.")
_AMPLITUDE_FLOOR = 1e-8


def detect(source: Source) -> bool:
    return any(name.startswith(tuple(f"{p}conv_pre." for p in _PREFIXES)) for name in source.entries)


def load(source: Source) -> Checkpoint:
    fields = source.json("config.json")
    kind = fields.text("generator_model")
    if kind != "hifigan_generator":
        raise refuse(fields.path, f"generator_model {kind!r}, expected 'hifigan_generator'")
    generator, audio = fields.sub("generator_model_params"), fields.sub("audio")
    config = make_config(
        fields.path,
        sample_rate=audio.int("sample_rate"),
        num_mels=audio.int("num_mels"),
        upsample_rates=generator.ints("upsample_factors"),
        upsample_kernel_sizes=generator.ints("upsample_kernel_sizes"),
        upsample_initial_channel=generator.int("upsample_initial_channel"),
        resblock="1" if generator.values.get("resblock_type") == "1" else "2",
        resblock_kernel_sizes=generator.ints("resblock_kernel_sizes"),
        resblock_dilation_sizes=generator.rows("resblock_dilation_sizes"),
        post_bias=generator.bool("conv_post_bias", True),
        mel=_mel(audio),
    )
    prefix = next(p for p in _PREFIXES if any(n.startswith(f"{p}conv_pre.") for n in source.entries))
    state = canonical_state(source, config, source.with_prefix(prefix))
    return Checkpoint(config, state, "coqui", {"container": source.container})


def _mel(audio: Fields) -> MelConfig | None:
    plain = (
        not audio.bool("signal_norm", True)
        and audio.float("spec_gain", 20) == 1
        and audio.bool("do_amp_to_db_mel", True)
        and not audio.float("preemphasis", 0)
        and not audio.bool("do_sound_norm", False)
        and not audio.bool("do_rms_norm", False)
        and audio.text("stft_pad_mode", "reflect") == "reflect"
    )
    if not plain or "hop_length" not in audio:
        return None
    return make_mel(
        audio.path,
        sample_rate=audio.int("sample_rate"),
        n_fft=audio.int("fft_size"),
        win_length=audio.int("win_length"),
        hop_length=audio.int("hop_length"),
        n_mels=audio.int("num_mels"),
        f_min=audio.float("mel_fmin", 0.0),
        f_max=audio.optional_float("mel_fmax"),
        log="ln" if audio.text("log_func", "np.log10") == "np.log" else "log10",
        floor=_AMPLITUDE_FLOOR,
        magnitude_eps=0.0,
        pad="center",
    )
