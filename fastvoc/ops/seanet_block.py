"""seanet_block: SEANet's residual block of two convolutions and a 1x1 shortcut (arXiv 2009.02095)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops.activation import IDENTITY
from fastvoc.ops.conv1d import Conv1dParams, conv1d_ref
from fastvoc.registry import define


@dataclass(frozen=True)
class SeanetBlockParams:
    """The convolutions of the block, each with its own activation before it (`pre`); all keep the length.

    `shortcut` None adds the input itself.
    """

    conv1: Conv1dParams
    conv2: Conv1dParams
    shortcut: Conv1dParams | None

    def __post_init__(self) -> None:
        for name, conv in self.convs().items():
            kernel = conv.weight.shape[2]
            if conv.stride != 1 or sum(conv.padding) != conv.dilation * (kernel - 1):
                raise ShapeError(
                    f"seanet_block: {name}: kernel {kernel}, stride {conv.stride}, dilation {conv.dilation} and padding"
                    f" {conv.padding} do not keep the length"
                )
        channels, hidden = self.conv1.weight.shape[1], self.conv1.weight.shape[0]
        out = channels if self.shortcut is None else self.shortcut.weight.shape[0]
        if self.conv2.weight.shape[:2] != (out, hidden):
            raise ShapeError(
                f"seanet_block: conv2: weight: expected [{out}, {hidden}, K], got {list(self.conv2.weight.shape)}"
            )
        if self.shortcut is not None and self.shortcut.weight.shape[1] != channels:
            raise ShapeError(
                f"seanet_block: shortcut: weight: expected [C_out, {channels}, K], got"
                f" {list(self.shortcut.weight.shape)}"
            )

    def convs(self) -> dict[str, Conv1dParams]:
        """The convolutions by name."""
        named = {"conv1": self.conv1, "conv2": self.conv2}
        return named if self.shortcut is None else {**named, "shortcut": self.shortcut}

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [t for conv in self.convs().values() for t in conv.tensors()]


def seanet_block(
    x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """y = shortcut(x) + conv2(conv1(x)), with the activations before the convolutions that `params` name.

    Where reflect padding asks for more steps than an item has, zeros are appended to it first and cut off afterwards,
    as EnCodec does (github.com/facebookresearch/encodec, modules/conv.py).

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: convolutions.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        backend: implementation to force.

    Returns:
        [B, C_out, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
        BackendError: the forced backend refuses.
    """
    return OP(x, params, lengths, backend=backend)


def _check(x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None) -> None:
    check_activations("seanet_block", x, params.conv1.weight.shape[1], params.conv1.weight)
    check_lengths("seanet_block", lengths, x.shape[0], x.shape[2])


def seanet_block_ref(x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None) -> Tensor:
    """The op's meaning in torch."""
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: seanet_block_ref(item, params))
    y = _conv(_conv(x, params.conv1), params.conv2)
    return y + (x if params.shortcut is None else _conv(x, params.shortcut))


def _conv(x: Tensor, conv: Conv1dParams) -> Tensor:
    """conv1d_ref, of a signal that is too short for the reflection with zeros appended."""
    steps = x.shape[2]
    missing = max(conv.padding) + 1 - steps if conv.pad_mode == "reflect" else 0
    if missing <= 0:
        return conv1d_ref(x, conv)
    longer = F.pad(conv.pre(x), (0, missing))
    return conv1d_ref(longer, replace(conv, pre=IDENTITY))[:, :, :steps]


OP = define("seanet_block", _check, seanet_block_ref)
