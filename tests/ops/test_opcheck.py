"""Every native op is what its schema says, and its fake makes what it makes, on calls that models make."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import mimi_models
import pytest
import torch
from checkpoint_files import KOKORO
from codec_models import MONO, STEREO, lively
from native_calls import WITHOUT_TENSORS, Call, Recorder
from stream_families import MAKERS, mel_of, randomised
from torch import Tensor
from whole_codecs import whole_codec

import fastvoc.ops
from fastvoc.codec import Codec
from fastvoc.models.jdc import Jdc

pytestmark = pytest.mark.native

_ELSEWHERE = ("mrf_has_tile", "mrf_has_stage")  # ask the CUDA library
_PER_OP = 4


@cache
def _declared() -> list[str]:
    """The ops of the CPU library that take tensors."""
    for module in iter_modules(fastvoc.ops.__path__):  # which declare them
        import_module(f"fastvoc.ops.{module.name}")
    names = [s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("_fastvoc::")]
    bare = {name.removeprefix("_fastvoc::") for name in names} - {*WITHOUT_TENSORS, *_ELSEWHERE}
    return sorted(name for name in bare if not name.startswith("triton_"))


@cache
def _calls() -> dict[str, list[Call]]:
    """A few calls of each op, with different kinds of arguments, that models make of whole signals and of chunks."""
    with Recorder() as recorder:
        for family in ("bigvgan-1", "bigvgan-2", "hifigan-1", "hift-sample", "hift-causal", "univnet", "vocos-center"):
            voc = MAKERS[family]()
            mel = mel_of(voc, 12)
            voc(torch.stack([mel, mel]), [12, 9], check=False)
            voc(mel, check=False)
            stream = voc.stream()
            stream.push(mel[:, :7])
            stream.flush(mel[:, 7:])
        for form in ("f32", "s16"):
            voc(mel, rate=8000, format=form, check=False)
        style = torch.randn(2, KOKORO.style_dim)
        randomised(KOKORO)(torch.randn(2, KOKORO.num_mels, 7), [7, 5], check=False, f0=150.0, n=0.5, style=style)
        Jdc().eval().requires_grad_(False)(torch.randn(2, 80, 5), torch.tensor([5, 4]))
        codecs = [Codec(lively(config), config) for config in (MONO, STEREO)]
        for codec in (*codecs, whole_codec("snac"), Codec(mimi_models.lively(mimi_models.SMALL), mimi_models.SMALL)):
            wav = torch.randn(codec.channels, 3 * codec.hop, generator=torch.Generator().manual_seed(1))
            codec(wav, codec.bandwidths[0])
            if codec.config.family == "mimi":
                codec.encoding(codebooks=1).stream().push(wav[None])  # whose layers write into what they are given
    found: dict[str, dict[object, Call]] = {}
    for call in recorder.calls:
        found.setdefault(call.name, {}).setdefault(_kind(call), call)
    return {name: list(kinds.values())[:_PER_OP] for name, kinds in found.items()}


def _kind(call: Call) -> tuple[object, ...]:
    """Which arguments are there, and their types."""
    return tuple((a.dtype, a.is_contiguous()) if isinstance(a, Tensor) else type(a) for a in call.args)


def test_every_op_is_called() -> None:
    assert sorted(_calls()) == _declared()


@pytest.mark.parametrize("name", _declared())
def test_schema_and_fake(name: str) -> None:
    op = getattr(torch.ops._fastvoc, name).default
    for call in _calls()[name]:
        torch.library.opcheck(op, tuple(call.args), test_utils=("test_schema", "test_faketensor"))
