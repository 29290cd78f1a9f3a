"""What `fastvoc.load` returns for Kokoro: a vocoder of text features, F0, energy and a style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastvoc.errors import ArgumentError
from fastvoc.loaded import Lengths
from fastvoc.nn.model import Array
from fastvoc.streams.stream import Check, Latency
from fastvoc.vocoder import Vocoder


class StyledVocoder(Vocoder):
    """A vocoder whose input is told by `decode`; a call takes the same by name, `voc(asr, f0=..., n=..., style=...)`.

    There are no streams: `stream` raises ArgumentError, since the model's norms run over a whole utterance.
    """

    _called = "asr"

    @property
    def latency(self) -> Latency:
        """Raises ArgumentError: there are no streams."""
        raise self._whole("latency")

    @property
    def context_frames(self) -> tuple[int, int]:
        """Raises ArgumentError: there are no streams."""
        raise self._whole("context_frames")

    def _whole(self, name: str) -> ArgumentError:
        """What `stream` raises, by another name."""
        try:
            self.model.stream(self.backend)
        except ArgumentError as error:
            return ArgumentError(f"{name}: {str(error).removeprefix('stream: ')}")
        raise AssertionError("the model has streams")

    def decode(
        self,
        asr: Array,
        f0: Array | float,
        n: Array | float,
        style: Array | Sequence[float],
        lengths: Lengths = None,
        *,
        har: Array | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
        check: Check = None,
    ) -> Tensor:
        """Makes the waveform of an utterance, or of a batch of them, each as if alone.

        Args:
            asr: [n_mels, T] or [B, n_mels, T] aligned text features.
            f0, n: [2 * T] or [B, 2 * T] F0 in Hz and energy, or a number for all steps; F0 of at most 10 is unvoiced.
            style: [style_dim] or [B, style_dim]; of a voice's row of 256 values the first 128.
            lengths: [B] whole numbers, the valid frames of each item of a batch; the waveform is 0 beyond them.
            har: magnitudes and angles of the source to take in place of the model's own.
            seed: of the source's noise, one for all or one for each item; 0 when None.
            check: as in a call.

        Returns:
            [S] or [B, S] samples, float32, S = T * hop.

        Raises:
            The errors of a call.
        """
        inputs: dict[str, Any] = {"f0": f0, "n": n, "style": style, "har": har, "seed": seed}
        return self(asr, lengths, check=check, **{name: value for name, value in inputs.items() if value is not None})
