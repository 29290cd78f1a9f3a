"""Fast neural vocoders: mel spectrograms in, sound out, with the same result as the published models.

Every name is imported when it is first used, so that `import fastvoc` is quick and does nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvoc.codec import Codec, Codes
    from fastvoc.compression import compress, decompress, load_language_model
    from fastvoc.errors import (
        ArgumentError,
        AssumptionWarning,
        AudioWarning,
        BackendError,
        DecodeError,
        DeviceError,
        DtypeError,
        FastvocError,
        LoadError,
        MelWarning,
        ShapeError,
        StreamError,
    )
    from fastvoc.explanation import explain
    from fastvoc.graphs.graphed import Graphed
    from fastvoc.loading import list_models, load, save
    from fastvoc.runtime.registry import use_backend, use_exact
    from fastvoc.runtime.threads import set_num_threads
    from fastvoc.streams.pool import Streams
    from fastvoc.streams.stream import Latency, Stream
    from fastvoc.vocoder import Vocoder

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "errors",
    "AssumptionWarning": "errors",
    "AudioWarning": "errors",
    "BackendError": "errors",
    "Codec": "codec",
    "Codes": "codec",
    "DecodeError": "errors",
    "DeviceError": "errors",
    "DtypeError": "errors",
    "FastvocError": "errors",
    "Graphed": "graphs.graphed",
    "Latency": "streams.stream",
    "LoadError": "errors",
    "MelWarning": "errors",
    "ShapeError": "errors",
    "Stream": "streams.stream",
    "StreamError": "errors",
    "Streams": "streams.pool",
    "Vocoder": "vocoder",
    "compress": "compression",
    "decompress": "compression",
    "explain": "explanation",
    "list_models": "loading",
    "load": "loading",
    "load_language_model": "compression",
    "save": "loading",
    "set_num_threads": "runtime.threads",
    "use_backend": "runtime.registry",
    "use_exact": "runtime.registry",
}

__all__ = [
    "ArgumentError",
    "AssumptionWarning",
    "AudioWarning",
    "BackendError",
    "Codec",
    "Codes",
    "DecodeError",
    "DeviceError",
    "DtypeError",
    "FastvocError",
    "Graphed",
    "Latency",
    "LoadError",
    "MelWarning",
    "ShapeError",
    "Stream",
    "StreamError",
    "Streams",
    "Vocoder",
    "__version__",
    "compress",
    "decompress",
    "explain",
    "list_models",
    "load",
    "load_language_model",
    "save",
    "set_num_threads",
    "use_backend",
    "use_exact",
]


# Modules that are a name of the package, too.
_MODULES = {"audio": "sound.audio", "mel": "sound.mel"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # also over the submodule of the same name, which the import has just put there
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
