"""Parts of HiFT between its layers."""

from __future__ import annotations

import torch

from fastvoc.models.hift_parts import Shortened


def test_shortened_items_are_silent_behind_their_ends() -> None:
    y = Shortened(2)(torch.ones(2, 3, 9), lengths=torch.tensor([9, 5]))
    assert y.shape == (2, 3, 7)
    assert y[0].all()
    assert y[1, :, :3].all()
    assert not y[1, :, 3:].any()
