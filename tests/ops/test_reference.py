"""What the torch references set on CUDA."""

from __future__ import annotations

import pytest
import torch

from fastvoc.ops._reference import full_float32


class _OnCuda:
    is_cuda, dtype = True, torch.float32


def test_tf32_is_off_inside_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    monkeypatch.setattr(cudnn, "benchmark", True)
    x = _OnCuda()
    with full_float32(x):  # type: ignore[arg-type]
        assert (cudnn.allow_tf32, cudnn.enabled, cudnn.benchmark) == (False, True, True)
        with full_float32(x):  # type: ignore[arg-type]
            assert not cudnn.allow_tf32
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), full_float32(x):  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert cudnn.allow_tf32
    with full_float32(torch.zeros(1)):
        assert cudnn.allow_tf32
