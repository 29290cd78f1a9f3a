"""Whole Piper voices: onnxruntime makes the latents of a sentence, fastvoc its sound, whole or chunk by chunk."""

from fastvoc.piper.config import VoiceConfig
from fastvoc.piper.voice import Voice, load

__all__ = ["Voice", "VoiceConfig", "load"]
