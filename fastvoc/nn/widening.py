"""Which layers of a bfloat16 model stay in float32, where its weights would make them lose too much."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from fastvoc.nn.budget import within
from fastvoc.nn.model import Model
from fastvoc.nn.quantized import Stage

# Decibels on the probe, which is harder than speech: a published voice of 36.8 there has 42.4 on its own latents.
LEAST = 36.0


def widen(
    model: Model,
    stages: Mapping[str, Stage],
    whole: Model,
    run: Callable[[], Tensor],
    meant: Tensor,
    backend: str | None = None,
) -> tuple[str, ...]:
    """The names of the stages that were brought back to float32, none where `run()` is near enough as it is.

    whole: the model in float32, whose weights these then hold; meant: what `run` would give in it.
    """
    layers = model.layers()
    half = {name: stage for name, stage in stages.items() if layers[name].dtype() is torch.bfloat16}

    def error(rounding: Collection[str]) -> Tensor:
        for name, stage in half.items():
            dtype = torch.bfloat16 if name in rounding else torch.float32
            if layers[name].dtype() is dtype:
                continue
            for path, layer in stage.layers.items():
                for key, wide in whole.get_submodule(path).named_parameters(recurse=False):
                    layer.get_parameter(key).data = wide.data.to(dtype)
            layers[name].repack(backend)
        return (run() - meant).double().square().sum()

    most = 10 ** (-LEAST / 10) * meant.double().square().sum()
    if error(half) <= most:
        return ()
    chosen, _ = within({name: stage.saved for name, stage in half.items()}, error, most)
    error(chosen)
    return tuple(name for name in half if name not in chosen)
