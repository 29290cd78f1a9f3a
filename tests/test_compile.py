"""torch.compile and torch.export of every family's model: one graph for any number of frames, the same samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import mimi_models
import pytest
import torch
from codec_models import MONO, lively
from stream_families import MAKERS, mel_of
from torch import Tensor, nn
from whole_codecs import whole_codec

from fastvoc.codec import Codec
from fastvoc.models.families import build
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.nn.model import Model

pytestmark = pytest.mark.native

CODECS: dict[str, Callable[[], Codec]] = {
    "encodec": lambda: Codec(lively(MONO), MONO),
    "dac": lambda: whole_codec("dac"),
    "snac": lambda: whole_codec("snac"),
    "mimi": lambda: Codec(mimi_models.lively(mimi_models.SMALL), mimi_models.SMALL),
}
FAMILIES = ("bigvgan-1", "hift-sample", "hifigan-1", "univnet", "vocos-center", *CODECS)
QUICK = ("hifigan-1", "vocos-center")
SMALL = HifiGanConfig(num_mels=6, upsample_initial_channel=16, upsample_rates=(2,), upsample_kernel_sizes=(4,))

_NO_LENGTHS = r"lengths: expected None inside torch\.compile and torch\.export"
_UNPACKED = r"conv1d: its weights are not packed as they are now; call prepare\(\)"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.compiler.reset()
    logging.disable(logging.DEBUG)  # the compiler's own, which pytest would keep, take longer than all the rest
    with torch.no_grad():
        yield
    logging.disable(logging.NOTSET)
    torch.compiler.reset()


def _model(family: str) -> tuple[Model, tuple[Tensor, Tensor]]:
    """A model and inputs of two lengths."""
    if family in CODECS:
        codec = CODECS[family]()
        wavs = [torch.randn(1, 1, n * codec.hop, generator=torch.Generator().manual_seed(n)) for n in (20, 28)]
        return codec.model, (wavs[0], wavs[1])
    voc = MAKERS[family]()
    return voc.model, (mel_of(voc, 20)[None], mel_of(voc, 27)[None])


def _native(graph: torch.fx.GraphModule) -> int:
    return sum("_fastvoc" in str(node.target) for module in graph.modules() for node in _nodes(module))


def _nodes(module: nn.Module) -> list[torch.fx.Node]:
    return list(module.graph.nodes) if isinstance(module, torch.fx.GraphModule) else []


@pytest.mark.parametrize("family", [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FAMILIES])
def test_compiles_to_one_graph(family: str) -> None:
    model, inputs = _model(family)
    graphs: list[torch.fx.GraphModule] = []

    def note(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=note)
    for x in inputs:
        assert torch.equal(compiled(x), model(x))
    assert len(graphs) == 1
    assert _native(graphs[0]) > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_exports_with_any_number_of_frames(family: str) -> None:
    model, inputs = _model(family)
    model.prepare()
    name = "wav" if family in CODECS else "mel"
    exported = torch.export.export(model, (inputs[0],), dynamic_shapes={name: {2: torch.export.Dim.DYNAMIC}}).module()
    assert _native(exported) > 3
    for x in inputs:
        assert torch.equal(exported(x), model(x))


def _small() -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    model = build(SMALL).eval().requires_grad_(False)
    return model, torch.randn(1, SMALL.num_mels, 12)


def test_compiles_the_weights_as_they_are() -> None:
    model, mel = _small()
    model.prepare()
    model.conv_post.weight.mul_(0.5)  # after it was packed, before it is compiled
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(mel), model(mel))
    model.conv_post.weight.mul_(0.5)
    model.prepare()
    assert torch.equal(compiled(mel), model(mel))


def test_the_reference_is_refused_by_compile() -> None:
    model, mel = _small()
    with pytest.raises(RuntimeError, match=r"torch\.compile takes native kernels only, not backend='torch'"):
        torch.compile(lambda x: model(x, backend="torch"), fullgraph=True, backend="eager")(mel)


def test_export_wants_weights_that_are_packed() -> None:
    model, mel = _small()
    with pytest.raises(RuntimeError, match=_UNPACKED):
        torch.export.export(model, (mel,))
    model.prepare()
    model.conv_pre.weight.mul_(0.5)
    with pytest.raises(RuntimeError, match=_UNPACKED):
        torch.export.export(model, (mel,))


def test_lengths_are_refused() -> None:
    model, mel = _small()
    model.prepare()
    with pytest.raises(RuntimeError, match=_NO_LENGTHS):
        torch.export.export(model, (mel, torch.tensor([9])))
    with pytest.raises(RuntimeError, match=_NO_LENGTHS):
        torch.compile(model, fullgraph=True, backend="eager")(mel, torch.tensor([9]))


def test_gradients_are_refused_by_compile() -> None:
    model, mel = _small()
    model.requires_grad_(True)
    with torch.enable_grad(), pytest.raises(RuntimeError, match=r"torch\.compile takes no gradients"):
        torch.compile(model, fullgraph=True, backend="eager")(mel)
