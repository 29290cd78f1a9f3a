"""Lets transformers be imported from the repository's root."""

from __future__ import annotations

import sys

# Transformers looks for a package called `kernels` and would find the repository's folder; None hides it.
sys.modules["kernels"] = None  # type: ignore[assignment]
