"""The classes of Hugging Face Transformers (5.23) that fastvoc has: import them from here and keep your code.

Every name is imported when it is first used; transformers itself is not needed. Vocos is in none of its releases: its
classes here follow drafts and are experimental.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvoc.runtime.names import lazy

if TYPE_CHECKING:
    from fastvoc.compat.dac_transformers import DacConfig as DacConfig
    from fastvoc.compat.dac_transformers import DacDecoderOutput as DacDecoderOutput
    from fastvoc.compat.dac_transformers import DacEncoderOutput as DacEncoderOutput
    from fastvoc.compat.dac_transformers import DacFeatureExtractor as DacFeatureExtractor
    from fastvoc.compat.dac_transformers import DacModel as DacModel
    from fastvoc.compat.dac_transformers import DacOutput as DacOutput
    from fastvoc.compat.encodec_transformers import EncodecConfig as EncodecConfig
    from fastvoc.compat.encodec_transformers import EncodecDecoderOutput as EncodecDecoderOutput
    from fastvoc.compat.encodec_transformers import EncodecEncoderOutput as EncodecEncoderOutput
    from fastvoc.compat.encodec_transformers import EncodecFeatureExtractor as EncodecFeatureExtractor
    from fastvoc.compat.encodec_transformers import EncodecModel as EncodecModel
    from fastvoc.compat.encodec_transformers import EncodecOutput as EncodecOutput
    from fastvoc.compat.hifigan_transformers import FastSpeech2ConformerHifiGan as FastSpeech2ConformerHifiGan
    from fastvoc.compat.hifigan_transformers import (
        FastSpeech2ConformerHifiGanConfig as FastSpeech2ConformerHifiGanConfig,
    )
    from fastvoc.compat.hifigan_transformers import SpeechT5HifiGan as SpeechT5HifiGan
    from fastvoc.compat.hifigan_transformers import SpeechT5HifiGanConfig as SpeechT5HifiGanConfig
    from fastvoc.compat.hiftnet_transformers import HiFTNetConfig as HiFTNetConfig
    from fastvoc.compat.hiftnet_transformers import HiFTNetModel as HiFTNetModel
    from fastvoc.compat.hiftnet_transformers import HiFTNetVocoder as HiFTNetVocoder
    from fastvoc.compat.mimi_transformers import MimiConfig as MimiConfig
    from fastvoc.compat.mimi_transformers import MimiDecoderOutput as MimiDecoderOutput
    from fastvoc.compat.mimi_transformers import MimiEncoderOutput as MimiEncoderOutput
    from fastvoc.compat.mimi_transformers import MimiModel as MimiModel
    from fastvoc.compat.mimi_transformers import MimiOutput as MimiOutput
    from fastvoc.compat.outputs import BatchFeature as BatchFeature
    from fastvoc.compat.outputs import ModelOutput as ModelOutput
    from fastvoc.compat.univnet_transformers import UnivNetConfig as UnivNetConfig
    from fastvoc.compat.univnet_transformers import UnivNetFeatureExtractor as UnivNetFeatureExtractor
    from fastvoc.compat.univnet_transformers import UnivNetModel as UnivNetModel
    from fastvoc.compat.univnet_transformers import UnivNetModelOutput as UnivNetModelOutput
    from fastvoc.compat.vocos_transformers import VocosConfig as VocosConfig
    from fastvoc.compat.vocos_transformers import VocosFeatureExtractor as VocosFeatureExtractor
    from fastvoc.compat.vocos_transformers import VocosModel as VocosModel
    from fastvoc.compat.vocos_transformers import VocosOutput as VocosOutput
    from fastvoc.compat.vocos_transformers import VocosWithEncodecConfig as VocosWithEncodecConfig
    from fastvoc.compat.vocos_transformers import VocosWithEncodecModel as VocosWithEncodecModel

_HOMES = {
    "dac_transformers": (
        "DacConfig",
        "DacDecoderOutput",
        "DacEncoderOutput",
        "DacFeatureExtractor",
        "DacModel",
        "DacOutput",
    ),
    "encodec_transformers": (
        "EncodecConfig",
        "EncodecDecoderOutput",
        "EncodecEncoderOutput",
        "EncodecFeatureExtractor",
        "EncodecModel",
        "EncodecOutput",
    ),
    "hifigan_transformers": (
        "FastSpeech2ConformerHifiGan",
        "FastSpeech2ConformerHifiGanConfig",
        "SpeechT5HifiGan",
        "SpeechT5HifiGanConfig",
    ),
    "hiftnet_transformers": ("HiFTNetConfig", "HiFTNetModel", "HiFTNetVocoder"),
    "mimi_transformers": ("MimiConfig", "MimiDecoderOutput", "MimiEncoderOutput", "MimiModel", "MimiOutput"),
    "outputs": ("BatchFeature", "ModelOutput"),
    "univnet_transformers": ("UnivNetConfig", "UnivNetFeatureExtractor", "UnivNetModel", "UnivNetModelOutput"),
    "vocos_transformers": (
        "VocosConfig",
        "VocosFeatureExtractor",
        "VocosModel",
        "VocosOutput",
        "VocosWithEncodecConfig",
        "VocosWithEncodecModel",
    ),
}

if not TYPE_CHECKING:
    __all__, __getattr__, __dir__ = lazy(globals(), _HOMES)
