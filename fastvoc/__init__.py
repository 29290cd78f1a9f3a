"""Fast neural vocoders: mel spectrograms in, sound out, with the same result as the published models.

Every name is imported when it is first used, so that `import fastvoc` is quick and does nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvoc.runtime.names import lazy

if TYPE_CHECKING:
    from fastvoc import piper as piper
    from fastvoc.codec import Codec as Codec
    from fastvoc.codec import Codes as Codes
    from fastvoc.compression import compress as compress
    from fastvoc.compression import decompress as decompress
    from fastvoc.compression import load_language_model as load_language_model
    from fastvoc.errors import ArgumentError as ArgumentError
    from fastvoc.errors import AssumptionWarning as AssumptionWarning
    from fastvoc.errors import AudioWarning as AudioWarning
    from fastvoc.errors import BackendError as BackendError
    from fastvoc.errors import DecodeError as DecodeError
    from fastvoc.errors import DeviceError as DeviceError
    from fastvoc.errors import DtypeError as DtypeError
    from fastvoc.errors import ExportError as ExportError
    from fastvoc.errors import FastvocError as FastvocError
    from fastvoc.errors import LoadError as LoadError
    from fastvoc.errors import MelWarning as MelWarning
    from fastvoc.errors import ShapeError as ShapeError
    from fastvoc.errors import StreamError as StreamError
    from fastvoc.explanation import explain as explain
    from fastvoc.exporting.export import export as export
    from fastvoc.graphs.graphed import Graphed as Graphed
    from fastvoc.loading import list_models as list_models
    from fastvoc.loading import load as load
    from fastvoc.loading import load_codec as load_codec
    from fastvoc.loading import load_vocoder as load_vocoder
    from fastvoc.loading import save as save
    from fastvoc.patching.patch import Patched as Patched
    from fastvoc.patching.patch import patch as patch
    from fastvoc.patching.patch import unpatch as unpatch
    from fastvoc.runtime.registry import use_backend as use_backend
    from fastvoc.runtime.registry import use_exact as use_exact
    from fastvoc.runtime.threads import set_num_threads as set_num_threads
    from fastvoc.sound import audio as audio
    from fastvoc.sound import mel as mel
    from fastvoc.streams.pool import Streams as Streams
    from fastvoc.streams.stream import Latency as Latency
    from fastvoc.streams.stream import Stream as Stream
    from fastvoc.vocoder import Vocoder as Vocoder

__version__ = "0.1.0"

# The public names once more, by the modules that have them, for what imports each when it is first used.
_HOMES = {
    "codec": ("Codec", "Codes"),
    "compression": ("compress", "decompress", "load_language_model"),
    "errors": (
        "ArgumentError",
        "AssumptionWarning",
        "AudioWarning",
        "BackendError",
        "DecodeError",
        "DeviceError",
        "DtypeError",
        "ExportError",
        "FastvocError",
        "LoadError",
        "MelWarning",
        "ShapeError",
        "StreamError",
    ),
    "explanation": ("explain",),
    "exporting.export": ("export",),
    "graphs.graphed": ("Graphed",),
    "loading": ("list_models", "load", "load_codec", "load_vocoder", "save"),
    "patching.patch": ("Patched", "patch", "unpatch"),
    "runtime.registry": ("use_backend", "use_exact"),
    "runtime.threads": ("set_num_threads",),
    "streams.pool": ("Streams",),
    "streams.stream": ("Latency", "Stream"),
    "vocoder": ("Vocoder",),
}
# Modules that are a name of the package, too.
_MODULES = {"audio": "sound.audio", "mel": "sound.mel", "piper": "piper"}

if not TYPE_CHECKING:
    __all__, __getattr__, __dir__ = lazy(globals(), _HOMES, _MODULES, also=["__version__"])
