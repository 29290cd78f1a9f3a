"""Configuration of Vocos, on mels and on codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fastvoc.models.checks import require, require_positive, require_rounds
from fastvoc.models.families import Config
from fastvoc.sound.mel import VOCOS_24K, MelConfig

# The published sizes are far below; beyond them lies only a file made to exhaust time or memory.
_MOST_LAYERS, _MOST_CHANNELS, _MOST_CODES = 256, 1 << 14, 1 << 20


@dataclass(frozen=True)
class VocosConfig(Config):
    """The model's shape, in the names of the published `config.yaml` where it has them.

    `padding` center makes (T - 1) * hop samples of T frames, same T * hop. `adanorm_num_embeddings` is the number of
    bandwidths among which `bandwidth_id` picks, None for plain norms; `bandwidths` are theirs in kbit/s. A model on
    codes has `num_codebooks` of `codebook_size` entries with `input_channels` each. `layer_scale`: the blocks have a
    gamma. `mel` is the front end of a model on mels, None when it is not known. `mel_skip`, ours: the head takes the
    mel itself beside the hidden states, so that magnitudes begin as what the mel says of them. `phase_rounds`, ours: so
    many rounds of Griffin and Lim's algorithm refine the head's phases under its magnitudes.
    """

    family: ClassVar[str] = "vocos"

    sample_rate: int = 24000
    input_channels: int = 100
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    kernel_size: int = 7
    layer_norm_eps: float = 1e-6
    layer_scale: bool = True
    adanorm_num_embeddings: int | None = None
    n_fft: int = 1024
    hop_length: int = 256
    padding: Literal["center", "same"] = "center"
    bandwidths: tuple[float, ...] = ()
    num_codebooks: int = 0
    codebook_size: int = 1024
    mel_skip: bool = False
    phase_rounds: int = 0
    mel: MelConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidths", tuple(float(b) for b in self.bandwidths))
        _validate(self)

    @property
    def num_mels(self) -> int:
        """Rows of the input: mel bands, or channels of the codes' features."""
        return self.input_channels

    @property
    def head_channels(self) -> int:
        """Channels that the head takes."""
        return self.dim + (self.input_channels if self.mel_skip else 0)

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.hop_length

    @property
    def min_frames(self) -> int:
        """The fewest frames that make a sound."""
        return 2 if self.padding == "center" else 1

    def samples(self, frames: int) -> int:
        """Length of the waveform made from a number of frames."""
        return (frames - (self.padding == "center")) * self.hop_length


def _validate(c: VocosConfig) -> None:
    for field in ("input_channels", "dim", "intermediate_dim", "n_fft"):
        require_positive(c, field)
        require(c, getattr(c, field) <= _MOST_CHANNELS, field, f"at most {_MOST_CHANNELS}")
    require_positive(c, "sample_rate", "num_layers", "kernel_size", "hop_length", "codebook_size")
    require(c, c.num_layers <= _MOST_LAYERS, "num_layers", f"at most {_MOST_LAYERS}")
    require(c, c.kernel_size % 2 == 1 and c.kernel_size < 1 << 10, "kernel_size", "an odd number below 1024")
    require(c, 0 < c.layer_norm_eps < 1, "layer_norm_eps", "a number between 0 and 1")
    require(c, isinstance(c.layer_scale, bool), "layer_scale", "true or false")
    require(
        c, isinstance(c.mel_skip, bool) and not (c.mel_skip and c.num_codebooks), "mel_skip", "true on mels, or false"
    )
    require_rounds(c, "phase_rounds")
    require(c, c.padding in ("center", "same"), "padding", '"center" or "same"')
    require(c, c.n_fft % 2 == 0, "n_fft", "an even number")
    require(c, c.hop_length < c.n_fft, "hop_length", f"less than n_fft, {c.n_fft}")
    whole = c.padding == "center" or (c.n_fft - c.hop_length) % 2 == 0
    require(c, whole, "hop_length", "an even n_fft - hop_length for padding same")
    rows = c.adanorm_num_embeddings
    if rows is not None:
        require_positive(c, "adanorm_num_embeddings")
        require(c, rows <= _MOST_CHANNELS, "adanorm_num_embeddings", f"at most {_MOST_CHANNELS}, or None")
    require(c, all(0 < b < 1e6 for b in c.bandwidths), "bandwidths", "positive numbers")
    fits = not c.bandwidths or len(c.bandwidths) == rows
    require(c, fits, "bandwidths", f"one for each of the adaptive norm's {rows} rows")
    books = c.num_codebooks
    ok = isinstance(books, int) and not isinstance(books, bool) and 0 <= books <= _MOST_CODES // c.codebook_size
    require(c, ok, "num_codebooks", f"a number of codebooks with at most {_MOST_CODES} entries in all")
    require(c, c.mel is None or not books, "mel", "None for a model on codes")
    front = None if c.mel is None else (c.mel.n_mels, c.mel.hop_length, c.mel.sample_rate)
    model = (c.input_channels, c.hop_length, c.sample_rate)
    require(c, front in (None, model), "mel", f"bands, hop and rate {model} like the model")


VOCOS_MEL_24K = VocosConfig(mel=VOCOS_24K)
VOCOS_ENCODEC_24K = VocosConfig(
    input_channels=128,
    dim=384,
    intermediate_dim=1152,
    adanorm_num_embeddings=4,
    n_fft=1280,
    hop_length=320,
    padding="same",
    bandwidths=(1.5, 3.0, 6.0, 12.0),
    num_codebooks=16,
)
