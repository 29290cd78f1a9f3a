"""Weight norm on the generator for training, under the parameter names of published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fastvoc.errors import LoadError
from fastvoc.runtime.packing import fold_weight_norm

_G, _V = "parametrizations.weight.original0", "parametrizations.weight.original1"


def initialise(generator: nn.Module) -> None:
    """Draws all weights and biases uniformly from +-1 / sqrt(fan in), as torch's convolutions start.

    The original trainer starts there too: what it means to draw (deviation 0.01) its weight norm overwrites. From 0.01
    the signal would die in the first layers and training would take several times as long.
    """
    for module in generator.modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            # Fan in as torch counts it: second axis times kernel, for transposed convolutions too.
            bound = weight[0].numel() ** -0.5
            for parameter in module._parameters.values():
                if parameter is not None:
                    nn.init.uniform_(parameter, -bound, bound)


def apply_weight_norm(generator: nn.Module) -> None:
    """Gives every `weight` of the generator magnitudes g and directions v (norm over all axes but the first).

    The order of parameters becomes that of the original: in each layer bias, g, v.
    """
    for module in list(generator.modules()):
        if "weight" in module._parameters:
            weight_norm(module)


def published_state(generator: nn.Module) -> dict[str, Tensor]:
    """Copies of the state of a generator under weight norm, named `...bias`, `...weight_g`, `...weight_v`."""
    return {
        name.replace(_G, "weight_g").replace(_V, "weight_v"): tensor.detach().clone()
        for name, tensor in generator.state_dict().items()
    }


def load_published(generator: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads g and v as they are. Names may be `weight_g`/`weight_v` or torch's newer `parametrizations.weight.*`.

    Raises LoadError naming the first tensor that is missing, left over or of another shape; nothing is loaded then.
    """
    renamed = {re.sub(r"weight_g$", _G, re.sub(r"weight_v$", _V, name)): t for name, t in state.items()}
    own = generator.state_dict()
    for name in sorted(own.keys() ^ renamed.keys()):
        problem = "missing in the file" if name in own else "not part of this configuration"
        raise LoadError(f"generator: {name}: {problem}")
    for name, tensor in renamed.items():
        if tensor.shape != own[name].shape:
            raise LoadError(f"generator: {name}: expected {list(own[name].shape)}, got {list(tensor.shape)}")
    generator.load_state_dict(renamed)


def folded_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state with every pair g, v folded into `weight` in float64."""
    folded = {}
    for name, tensor in state.items():
        if name.endswith("weight_g"):
            continue
        if name.endswith("weight_v"):
            folded[name[:-2]] = fold_weight_norm(state[name[:-1] + "g"], tensor)
        else:
            folded[name] = tensor
    return folded
