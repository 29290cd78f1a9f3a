"""Text to phoneme ids by Piper's own phonemizer, the package piper-tts, where that is installed."""

from __future__ import annotations

from typing import Any

from fastvoc.errors import ArgumentError, FastvocError
from fastvoc.piper.config import VoiceConfig


class Phonemizer:
    """Piper's phonemizer for a voice. Raises FastvocError when the package is not installed."""

    def __init__(self, config: VoiceConfig) -> None:
        try:
            from piper import PiperVoice
            from piper.config import PiperConfig
        except ImportError as error:
            problem = f"speaking text needs the package piper-tts ({error}): pip install piper-tts; or give phoneme ids"
            raise FastvocError(problem) from error
        self._voice: Any = PiperVoice(session=None, config=PiperConfig.from_dict(dict(config.values)))

    def __call__(self, text: str) -> list[list[int]]:
        """The ids of every sentence of a text. Raises ArgumentError for a text that Piper cannot read."""
        try:
            sentences = self._voice.phonemize(text)
            return [list(self._voice.phonemes_to_ids(phonemes)) for phonemes in sentences if phonemes]
        except (ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ArgumentError(f"text: piper-tts cannot read it ({type(error).__name__}: {error})") from error
