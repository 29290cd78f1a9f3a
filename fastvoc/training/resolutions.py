"""UnivNet's multi-resolution discriminator (arXiv 2106.07889), which Vocos has in the place of the multi-scale one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastvoc.training.discriminators import Judged, check_wav, judge, scaled
from fastvoc.training.losses import magnitude
from fastvoc.training.normed import WeightNormConv

_CHANNELS = 32
# kernel and stride over frames and bins
_LAYERS = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))


class ResolutionDiscriminator(nn.Module):
    """Judges the magnitudes of the STFT of `n_fft` and `hop` samples."""

    def __init__(self, n_fft: int, hop: int, width: float = 1.0) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        channels = scaled(_CHANNELS, width)
        self.convs = nn.ModuleList(
            WeightNormConv(channels if i else 1, channels, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
            for i, (kernel, stride) in enumerate(_LAYERS)
        )
        self.conv_post = WeightNormConv(channels, 1, (3, 3), (1, 1), (1, 1))

    def forward(self, wav: Tensor) -> Judged:
        """wav [B, 1, L] -> score [B, n] and feature maps [B, C, frames, bins], the score's own map last."""
        return judge(magnitude(wav[:, 0], self.n_fft, self.hop).transpose(1, 2)[:, None], self.convs, self.conv_post)


class MultiResolutionDiscriminator(nn.Module):
    """One `ResolutionDiscriminator` a resolution (n_fft, hop)."""

    def __init__(self, width: float = 1.0, resolutions: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(ResolutionDiscriminator(n, hop, width) for n, hop in resolutions)

    def forward(self, wav: Tensor) -> list[Judged]:
        """wav [B, 1, L], L more than half of every n_fft -> one (score, feature maps) a resolution."""
        check_wav(wav)
        return [d(wav) for d in self.discriminators]
