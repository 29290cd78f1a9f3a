"""The test tools themselves: an exceeded tolerance, a missing capability and fresh memory must show."""

from __future__ import annotations

import pytest
import torch

from helpers import assert_golden, golden, implementations, need, required


def test_golden_compares_against_the_stated_tolerance() -> None:
    case = golden("hifigan_v1_small")
    wav = case.outputs["wav"]
    step = case.tolerance("wav") * wav.square().mean().sqrt()
    assert_golden(wav + 0.9 * step, case, "wav")
    with pytest.raises(AssertionError, match="exceeds"):
        assert_golden(wav + 1.1 * step, case, "wav")
    with pytest.raises(AssertionError, match="not finite"):
        assert_golden(wav * torch.nan, case, "wav")


def test_a_missing_capability_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_REQUIRE", "golden")
    need("native", None)
    with pytest.raises(pytest.skip.Exception):
        need("native", "gone")
    with pytest.raises(pytest.fail.Exception):
        need("golden", "gone")
    monkeypatch.setenv("FASTVOC_REQUIRE", "goldn")
    with pytest.raises(pytest.UsageError):
        required()


@pytest.mark.usefixtures("nan_poison")
def test_poison_reaches_every_kind_of_empty() -> None:
    x = torch.zeros(2)
    for fresh in (torch.empty(3), torch.empty_like(x), x.new_empty(4), torch.empty_strided((2, 2), (2, 1))):
        assert fresh.isnan().all()


def test_every_op_lists_the_reference_first() -> None:
    for op in ("conv1d", "upsample", "mrf"):
        names = [parameter.values[0] for parameter in implementations(op)]
        assert names[0] == "torch"
        assert "cpp" in names
