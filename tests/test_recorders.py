"""What listens to a model's layers, for tests and benchmarks: it hears all of them, whichever way the model runs."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from layer_calls import computes_in, placed, record, takes
from stream_families import MAKERS, vocoder
from torch import nn

from fastvoc.ops._triton import triton_problem
from helpers import ROOT, need

sys.path.append(str(ROOT / "benchmarks"))
import ops as benchmark_ops
import zoo

NARROW = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("family", sorted(MAKERS))
def test_every_layer_is_heard(family: str) -> None:
    voc = vocoder(family)
    mel = torch.randn(1, voc.n_mels, 20)
    heard = record(voc.model, lambda: voc.model(mel, backend="torch"))
    unheard = set(voc.model.layers()) - {call.layer for call in heard}
    speakers = {name for name in voc.model.layers() if name.startswith(("cond", "conds."))}
    assert unheard <= speakers, "a speaker, which was not given"


@pytest.mark.parametrize("name", ["v1", "v2", "v3"])
def test_benchmarks_have_rows_of_hifigan(name: str) -> None:
    rows = list(benchmark_ops.entries([name], 0.05, 1, "cpu", torch.float32))
    assert {row.op for row in rows} == {"conv1d", "upsample", "mrf"}


def test_recorders_fail_where_nothing_was_heard() -> None:
    model = lively(MONO)
    with pytest.raises(AssertionError):
        record(model, lambda: None)
    with pytest.raises(RuntimeError, match="no layer was recorded"), benchmark_ops.recorded(model):
        pass


def _cast(family: str, dtype: torch.dtype) -> Any:
    return (lively(MONO) if family == "encodec" else MAKERS[family]().model).to(dtype)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("family", [*sorted(MAKERS), "encodec"])
def test_layers_that_stay_wide_are_called_in_their_own_dtype(family: str, dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    model = _cast(family, torch.float32)
    if family == "encodec":
        codes = torch.randint(0, MONO.bins, (1, 4, 13))
        heard = record(model, lambda: model.decode_segment(codes, backend="torch"))
    else:
        mel = torch.randn(1, model.config.num_mels, 13)
        heard = record(model, lambda: model(mel, backend="torch"))
    layers = model.to(dtype).layers()
    for call in heard:
        layer = layers[call.layer]
        own = computes_in(layer, dtype)
        with torch.inference_mode():
            y = layer(placed(call.x, "cpu", own), *(placed(a, "cpu", own) for a in call.args), backend="torch")
        assert y.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, *NARROW], ids=str)
@pytest.mark.parametrize("family", [*sorted(MAKERS), "encodec"])
def test_triton_takes_layers_of_every_family(family: str, dtype: torch.dtype) -> None:
    """So that a run on a device that tests none of them has failed."""
    need("triton", triton_problem())
    layers = _cast(family, dtype).layers()
    taken = [name for name, layer in layers.items() if takes(layer, layer.explain()[0], "triton", dtype)]
    assert len(taken) > len(layers) / 2


class _Odd(nn.Module):
    """Fails in a way of its own."""

    def forward(self) -> None:
        raise ValueError("a kernel's own")


def test_a_failure_is_a_row_on_a_device_and_an_error_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    assert zoo.refusal(lambda: None, "cuda") is None
    assert waits == [1]
    assert zoo.refusal(_Odd(), "cuda") == "ValueError: a kernel's own"
    with pytest.raises(ValueError, match="own"):
        zoo.refusal(_Odd())
