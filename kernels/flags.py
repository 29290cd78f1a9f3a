"""Flags that kernels set on their device, since they can raise nothing."""

from __future__ import annotations

import torch
from torch import Tensor

_flags: dict[torch.device, Tensor] = {}


def wrong_codes(device: torch.device) -> Tensor:
    """int32 [1]: becomes 1 where a kernel meets a code outside its codebook, which it takes for the nearest one."""
    if device not in _flags:
        with torch.inference_mode(False):
            _flags[device] = torch.zeros(1, dtype=torch.int32, device=device)
    return _flags[device]


def take_wrong_codes(device: torch.device) -> bool:
    """Whether the flag was set since the last call; waits for the device."""
    flag = _flags.get(device)
    if flag is None or not flag.item():
        return False
    flag.zero_()
    return True
