"""The classes of Hugging Face Transformers (5.23) that fastvoc has: import them from here and keep your code.

Every name is imported when it is first used; transformers itself is not needed. Vocos is in none of its releases: its
classes here follow drafts and are experimental.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvoc.compat.encodec_transformers import (
        EncodecConfig,
        EncodecDecoderOutput,
        EncodecEncoderOutput,
        EncodecFeatureExtractor,
        EncodecModel,
        EncodecOutput,
    )
    from fastvoc.compat.hifigan_transformers import (
        FastSpeech2ConformerHifiGan,
        FastSpeech2ConformerHifiGanConfig,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )
    from fastvoc.compat.hiftnet_transformers import HiFTNetConfig, HiFTNetModel, HiFTNetVocoder
    from fastvoc.compat.outputs import BatchFeature, ModelOutput
    from fastvoc.compat.univnet_transformers import (
        UnivNetConfig,
        UnivNetFeatureExtractor,
        UnivNetModel,
        UnivNetModelOutput,
    )
    from fastvoc.compat.vocos_transformers import (
        VocosConfig,
        VocosFeatureExtractor,
        VocosModel,
        VocosOutput,
        VocosWithEncodecConfig,
        VocosWithEncodecModel,
    )

_HOMES = {
    "BatchFeature": "outputs",
    "EncodecConfig": "encodec_transformers",
    "EncodecDecoderOutput": "encodec_transformers",
    "EncodecEncoderOutput": "encodec_transformers",
    "EncodecFeatureExtractor": "encodec_transformers",
    "EncodecModel": "encodec_transformers",
    "EncodecOutput": "encodec_transformers",
    "FastSpeech2ConformerHifiGan": "hifigan_transformers",
    "FastSpeech2ConformerHifiGanConfig": "hifigan_transformers",
    "HiFTNetConfig": "hiftnet_transformers",
    "HiFTNetModel": "hiftnet_transformers",
    "HiFTNetVocoder": "hiftnet_transformers",
    "ModelOutput": "outputs",
    "SpeechT5HifiGan": "hifigan_transformers",
    "SpeechT5HifiGanConfig": "hifigan_transformers",
    "UnivNetConfig": "univnet_transformers",
    "UnivNetFeatureExtractor": "univnet_transformers",
    "UnivNetModel": "univnet_transformers",
    "UnivNetModelOutput": "univnet_transformers",
    "VocosConfig": "vocos_transformers",
    "VocosFeatureExtractor": "vocos_transformers",
    "VocosModel": "vocos_transformers",
    "VocosOutput": "vocos_transformers",
    "VocosWithEncodecConfig": "vocos_transformers",
    "VocosWithEncodecModel": "vocos_transformers",
}

__all__ = [
    "BatchFeature",
    "EncodecConfig",
    "EncodecDecoderOutput",
    "EncodecEncoderOutput",
    "EncodecFeatureExtractor",
    "EncodecModel",
    "EncodecOutput",
    "FastSpeech2ConformerHifiGan",
    "FastSpeech2ConformerHifiGanConfig",
    "HiFTNetConfig",
    "HiFTNetModel",
    "HiFTNetVocoder",
    "ModelOutput",
    "SpeechT5HifiGan",
    "SpeechT5HifiGanConfig",
    "UnivNetConfig",
    "UnivNetFeatureExtractor",
    "UnivNetModel",
    "UnivNetModelOutput",
    "VocosConfig",
    "VocosFeatureExtractor",
    "VocosModel",
    "VocosOutput",
    "VocosWithEncodecConfig",
    "VocosWithEncodecModel",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"fastvoc.compat.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
