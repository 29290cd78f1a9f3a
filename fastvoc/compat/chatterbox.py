"""github.com/resemble-ai/chatterbox: the vocoder of its `models.s3gen`, with the first sine generator at any rate."""

from __future__ import annotations

from dataclasses import replace

from fastvoc.compat import cosyvoice
from fastvoc.compat.cosyvoice import ConvRNNF0Predictor
from fastvoc.models.hift_config import CHATTERBOX, HiftConfig

__all__ = ["ConvRNNF0Predictor", "HiFTGenerator"]


class HiFTGenerator(cosyvoice.HiFTGenerator):
    """Chatterbox's `mel2wav`: arguments and methods are those of `fastvoc.compat.cosyvoice.HiFTGenerator`."""

    @classmethod
    def published(cls, sampling_rate: int) -> HiftConfig:
        """Chatterbox."""
        return replace(CHATTERBOX, mel=None)
