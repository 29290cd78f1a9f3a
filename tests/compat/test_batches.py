"""Requests as one batch: each has what its own call gives, whatever runs beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compat_models import BANDS, MODELS
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError

KINDS = ["chatterbox.HiFTGenerator", "cosyvoice.HiFTGenerator"]
CAUSAL = "cosyvoice.CausalHiFTGenerator"
BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]
LENGTHS = (12, 1, 31, 12, 7)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def mels(lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    """Some as they are, some as a batch of one."""
    made = [torch.randn(BANDS, n) for n in lengths]
    return [mel[None] if i % 2 else mel for i, mel in enumerate(made)]


def close(ours: Tensor, theirs: Tensor, backend: str) -> None:
    if backend == "cpp":
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@each_backend
@each_kind
def test_each_has_the_result_of_its_own_call(kind: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", backend)
    model, feats = MODELS[kind].made(), mels()
    hop = model._model.config.hop
    caches = [torch.randn(1, 1, 3 * hop), None, torch.zeros(1, 1, 0), torch.randn(1, 1, 12 * hop), torch.randn(1, 1, 5)]
    for given in (None, caches):
        torch.manual_seed(9)
        together = model.inference_batch(feats, given)
        torch.manual_seed(9)
        assert len(together) == len(feats)
        for feat, cache, (wav, source) in zip(feats, given or [None] * len(feats), together, strict=True):
            alone, alone_source = model.inference(feat.reshape(1, BANDS, -1), cache)
            assert wav.shape == alone.shape
            assert source.shape == alone_source.shape
            close(source, alone_source, backend)
            close(wav, alone, backend)
            if cache is not None:
                assert torch.equal(source[:, :, : cache.shape[2]], cache)


@each_backend
def test_causal_requests_final_and_not(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", backend)
    model, feats = MODELS[CAUSAL].made(), mels((12, 15, 31, 12, 11))
    for finalize in (True, False, [True, False, False, True, False]):
        finals = [finalize] * len(feats) if isinstance(finalize, bool) else finalize
        together = model.inference_batch(feats, finalize)
        for feat, final, (wav, source) in zip(feats, finals, together, strict=True):
            alone, alone_source = model.inference(feat.reshape(1, BANDS, -1), finalize=final)
            assert wav.shape == alone.shape
            assert source.shape == alone_source.shape
            close(source, alone_source, backend)
            close(wav, alone, backend)


@pytest.mark.parametrize("kind", [*KINDS, CAUSAL])
def test_results_share_no_memory_and_nothing_makes_nothing(kind: str) -> None:
    model = MODELS[kind].made()
    assert model.inference_batch([]) == []
    (first, _), (second, _) = model.inference_batch(mels((9, 9)))
    assert first.untyped_storage().nbytes() == first.nbytes
    assert second.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()


@pytest.mark.parametrize("kind", [*KINDS, CAUSAL])
def test_what_does_not_fit_is_named(kind: str) -> None:
    model: Any = MODELS[kind].made()
    good = torch.randn(BANDS, 9)
    for error, text, bad in (
        (ShapeError, r"speech_feats\[1\]: expected \[6, T > 0\]", torch.randn(BANDS + 1, 9)),
        (ShapeError, r"speech_feats\[1\]", torch.randn(2, BANDS, 9)),
        (ShapeError, r"speech_feats\[1\]", torch.randn(BANDS, 0)),
        (ShapeError, r"speech_feats\[1\]", torch.randn(9)),
        (DtypeError, r"speech_feats\[1\]", torch.randn(BANDS, 9, dtype=torch.complex64)),
        (DtypeError, r"speech_feats\[1\]: .* got list", [[1.0]]),
    ):
        with pytest.raises(error, match=text):
            model.inference_batch([good, bad])


def test_caches_and_ends_that_do_not_fit_are_named() -> None:
    model: Any = MODELS[KINDS[0]].made()
    feats = [torch.randn(BANDS, 9), torch.randn(BANDS, 3)]
    hop = model._model.config.hop
    with pytest.raises(ArgumentError, match="cache_sources: expected one for each of 2 requests, got 1"):
        model.inference_batch(feats, [None])
    for shape in ((1, 1, 3 * hop + 1), (2, 1, 4), (1, 2, 4), (1, 4)):
        with pytest.raises(ShapeError, match=rf"cache_sources\[1\]: expected \[1, 1, at most {3 * hop}\]"):
            model.inference_batch(feats, [None, torch.zeros(shape)])
    for call in (lambda: model.inference_batch(feats, [None, [0.0]]), lambda: model.inference(feats[0][None], [0.0])):
        with pytest.raises(DtypeError, match=r"cache_source.*: expected a tensor, got list"):
            call()
    causal: Any = MODELS[CAUSAL].made()
    with pytest.raises(ArgumentError, match="finalize: expected one for each of 2 requests, got 3"):
        causal.inference_batch(feats, [True, True, False])
    with pytest.raises(ShapeError, match="for final=False"):
        causal.inference_batch(feats, [True, False])
