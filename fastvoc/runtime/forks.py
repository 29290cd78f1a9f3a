"""Keeps a process usable after fork: OpenMP's threads do not live on in the child, waiting for them never ends."""

from __future__ import annotations

import os
from functools import cache

import torch

_LOADED_BY = os.getpid()


def forked() -> bool:
    """Whether this process was forked from the one that loaded fastvoc."""
    return os.getpid() != _LOADED_BY


@cache
def survive_forks() -> None:
    """From now on a forked child computes on one thread; called once something may have started torch's threads."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_single_thread)


def _single_thread() -> None:
    torch.set_num_threads(1)
