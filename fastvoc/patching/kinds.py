"""What every kind of replaced decoder tells `fastvoc.patch`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError


class Kind(NamedTuple):
    """Decoders of one package, told by where they are and what their class is called.

    path: attributes from the model to its decoder; classes: what it or a base class of it is called. `make` gives
    fastvoc's own for one; `compare`, given both, what they make of a short input, in pairs.
    """

    package: str
    path: tuple[str, ...]
    classes: tuple[str, ...]
    make: Callable[[nn.Module], nn.Module]
    compare: Callable[[nn.Module, nn.Module], list[tuple[Tensor, Tensor]]]


def names_of(value: object) -> list[str]:
    """The names of a value's class and its base classes."""
    return [cls.__name__ for cls in type(value).__mro__]


def noise(shape: Iterable[int], like: Tensor) -> Tensor:
    """The same random values every time, which leave torch's own generator alone, in the type and place of `like`."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(tuple(shape), generator=draw, dtype=torch.float32, device="cpu").to(like)


def take(decoder: nn.Module, own: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives fastvoc's decoder all weights of another, in their type and place, frozen.

    Raises ArgumentError that names the first tensor which does not fit.
    """
    wanted, where = own.state_dict(), type(decoder).__name__
    for name, tensor in state.items():
        if name not in wanted:
            raise ArgumentError(f"model: {where}: tensor {name!r} has no place in fastvoc's decoder")
        if tensor.shape != wanted[name].shape:
            expected = f"{list(wanted[name].shape)} by its other parts"
            raise ArgumentError(f"model: {where}: tensor {name!r} is {list(tensor.shape)}, expected {expected}")
    if missing := [name for name in wanted if name not in state]:
        raise ArgumentError(f"model: {where}: tensor {missing[0]!r} is missing")
    own.load_state_dict({name: tensor.detach().clone() for name, tensor in state.items()}, assign=True)
    own.eval().requires_grad_(False)
    last = last_weight(own)
    own.to(last.device, last.dtype)


def last_weight(decoder: nn.Module) -> Tensor:
    """The weight of its last convolution, `conv_post`, which has the decoder's type."""
    return next(tensor for name, tensor in decoder.named_parameters() if name.endswith("conv_post.weight"))
