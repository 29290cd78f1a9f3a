"""What sherpa-onnx asks of a vocoder's file (github.com/k2-fsa/sherpa-onnx, `sherpa-onnx/csrc/vocoder.cc`).

Its HiFi-GAN takes any file that makes samples of a log-mel; its Vocos inverts the spectrum itself, centred, under a
Hann window. A model with another last layer is the first kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fastvoc.errors import ExportError
from fastvoc.exporting.spectral import spectrum as spectrum_of
from fastvoc.exporting.wire import Wire
from fastvoc.nn.layer import Layer
from fastvoc.nn.model import Given
from fastvoc.nn.network import Step
from fastvoc.ops.istft_head import IstftHeadParams

METADATA = {"model_type": "hifigan"}
_Outputs = dict[str, tuple[Wire, Sequence[int | str]]]


def check(inputs: Mapping[str, Given]) -> None:
    """Raises ExportError for a model that takes more than a log-mel."""
    if list(inputs) != ["mel"]:
        raise ExportError(f"inputs: sherpa-onnx gives a vocoder a log-mel and nothing else, not {', '.join(inputs)}")


def inverts(last: Step) -> bool:
    """Whether sherpa-onnx inverts the spectrum itself after this step's input."""
    params = last.does.prepared.params() if isinstance(last.does, Layer) else None
    if not isinstance(params, IstftHeadParams):
        return False
    plain = params.padding == "center" and params.phase == "linear" and params.clamp is None
    hann = torch.hann_window(params.n_fft, dtype=torch.float64, device="cpu")
    return plain and torch.allclose(params.window.double().cpu(), hann, rtol=0, atol=1e-6)


def spectrum(last: Step, x: Wire) -> tuple[_Outputs, dict[str, str]]:
    """The outputs and metadata of its Vocos: magnitudes, and the cosines and sines of the phases."""
    assert isinstance(last.does, Layer)
    params = last.does.prepared.params()
    assert isinstance(params, IstftHeadParams)
    axes: list[int | str] = ["batch", params.n_fft // 2 + 1, "frames"]
    outputs: _Outputs = {
        name: (wire, axes) for name, wire in zip(("mag", "x", "y"), spectrum_of(params, x), strict=True)
    }
    metadata = {
        "model_type": "vocos",
        "n_fft": str(params.n_fft),
        "hop_length": str(params.hop),
        "win_length": str(params.n_fft),
        "center": "1",
        "normalized": "0",
        "window_type": "hann",
        "pad_mode": "reflect",
    }
    return outputs, metadata
