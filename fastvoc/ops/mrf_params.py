"""The parameters of mrf: residual blocks of convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops._checks import check_input_range, check_pad_mode
from fastvoc.ops.activation import Activation
from fastvoc.runtime import packing

PAD_MODES = ("zeros", "reflect", "causal")  # in the order of their numbers in csrc/cpu/mrf_args.h


@dataclass(frozen=True)
class MrfConv:
    """One convolution of a residual block: weight [C, C, K], bias [C] or None, dilation; padding keeps the length.

    With a weight [C, 1, K] every channel is convolved with itself alone.
    `act` comes before it, the stage's own activation when None. With `input_range` [2], float32, it multiplies whole
    numbers, as `Conv1dParams` does.
    """

    weight: Tensor
    bias: Tensor | None
    dilation: int
    act: Activation | None = None
    input_range: Tensor | None = None

    @property
    def depthwise(self) -> bool:
        """Whether channels do not mix."""
        return self.weight.shape[1] == 1 < self.weight.shape[0]

    @property
    def padding(self) -> int:
        """Steps padded in all."""
        return (self.weight.shape[2] - 1) * self.dilation


@dataclass(frozen=True)
class MrfParams:
    """Residual blocks over the same input.

    `blocks[j]` lists the layers of block j, each a tuple of one or two convolutions; a layer adds its result to its
    input, and `act` comes before every convolution that has none of its own. `pad_mode` zeros or reflect pads half on
    either side, causal pads zeros before the first step only. `longest` bounds the tiles of Toom-Cook in bfloat16.
    """

    blocks: tuple[tuple[tuple[MrfConv, ...], ...], ...]
    act: Activation
    pad_mode: str = "zeros"
    longest: packing.Tile = "long"

    def __post_init__(self) -> None:
        check_pad_mode("mrf", self.pad_mode, PAD_MODES)
        convs = self.convs()
        if not convs or any(len(layer) not in (1, 2) for block in self.blocks for layer in block):
            raise ArgumentError("mrf: blocks: expected layers of one or two convolutions, and at least one block")
        channels = convs[0].weight.shape[0]
        for c in convs:
            if c.weight.dim() != 3 or c.weight.shape[0] != channels or c.weight.shape[1] not in (1, channels):
                wanted = f"[{channels}, {channels}, K] or [{channels}, 1, K]"
                raise ShapeError(f"mrf: weight: expected {wanted}, got {list(c.weight.shape)}")
            if c.depthwise and c.input_range is not None:
                raise ArgumentError("mrf: input_range: a depthwise convolution multiplies no whole numbers")
            if c.padding % 2 and self.pad_mode != "causal":
                raise ShapeError(f"mrf: kernel {c.weight.shape[2]} with dilation {c.dilation} cannot keep the length")
            self.act_before(c).check("mrf", channels, c.weight)
            check_input_range("mrf", c.input_range, c.weight)

    @property
    def int8(self) -> bool:
        """Whether it multiplies whole numbers."""
        return any(conv.input_range is not None for conv in self.convs())

    @property
    def form(self) -> str:
        """How it computes where that is not the usual way, for `fastvoc.explain`."""
        bounds = {"long": "", "short": "short tiles", "none": "direct"}
        return "int8" if self.int8 else bounds[self.longest]

    @property
    def depthwise(self) -> bool:
        """Whether any convolution is."""
        return any(conv.depthwise for conv in self.convs())

    def tensors(self) -> list[Tensor]:
        """The weights, the activations' parameters and the inputs' ranges."""
        weights = [t for conv in self.convs() for t in (conv.weight, conv.bias) if t is not None]
        curves = [t for conv in self.convs() for t in self.act_before(conv).tensors()]
        return weights + curves + [conv.input_range for conv in self.convs() if conv.input_range is not None]

    def act_before(self, conv: MrfConv) -> Activation:
        """The activation before a convolution."""
        return self.act if conv.act is None else conv.act

    def padding(self, conv: MrfConv) -> tuple[int, int]:
        """Steps padded before and after the input of a convolution."""
        right = 0 if self.pad_mode == "causal" else conv.padding // 2
        return conv.padding - right, right

    def convs(self) -> list[MrfConv]:
        """All convolutions in order of use, block by block."""
        return [conv for block in self.blocks for layer in block for conv in layer]
