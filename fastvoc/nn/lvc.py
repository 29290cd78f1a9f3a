"""The layers of a location-variable convolution: the network that predicts its kernels, and its use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.layer import Layer
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import conv1d as conv1d_op
from fastvoc.ops import lvc as op
from fastvoc.ops.activation import leaky_relu


class KernelConv(nn.Module):
    """The convolution that gives the kernels of several lvc layers, one set per frame.

    weight [layers * C_in * C_out * K, hidden, k], bias likewise; the output channels in the order of these factors.
    """

    def __init__(self, hidden: int, layers: int, cin: int, cout: int, taps: int, kernel_size: int) -> None:
        super().__init__()
        self._shape = (layers, cin, cout, taps)
        self.weight = nn.Parameter(torch.empty(layers * cin * cout * taps, hidden, kernel_size))
        self.bias = nn.Parameter(torch.empty(layers * cin * cout * taps))
        self.slices = [KernelSlice(self, index) for index in range(layers)]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan in), torch's default for convolutions."""
        bound = self.weight[0].numel() ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def network(self, run: Trace, x: Value, index: int) -> Value:
        """[B, hidden, L] -> the kernels [B, K, C_in, C_out, L] of lvc layer `index`."""
        return run.map(self._kernels, run(self.slices[index], x))

    def _kernels(self, rows: Tensor) -> Tensor:
        _, cin, cout, taps = self._shape
        kernels: Tensor = rows.unflatten(1, (taps, cin, cout))
        return kernels


class KernelSlice(Layer):
    """One layer's part of a KernelConv, its output channels in the order that lvc reads fastest."""

    MORE = 1

    def __init__(self, owner: KernelConv, index: int) -> None:
        self._owner, self._index = owner, index
        self.prepared = Prepared(conv1d_op.OP, self.params, self.tensors)

    def params(self) -> conv1d_op.Conv1dParams:
        weight, bias = self._owner.weight, self._owner.bias
        weight = weight.unflatten(0, self._owner._shape)[self._index].permute(2, 0, 1, 3, 4).flatten(0, 2)
        bias = bias.unflatten(0, self._owner._shape)[self._index].permute(2, 0, 1).flatten()
        pad = (weight.shape[2] - 1) // 2
        return conv1d_op.Conv1dParams(weight, bias, padding=(pad, pad))

    def tensors(self) -> list[Tensor]:
        return [self._owner.weight, self._owner.bias]

    def width(self) -> int:
        return self._owner.weight.shape[0] // len(self._owner.slices)

    def owners(self) -> list[nn.Module]:
        return [self._owner]

    __call__ = Layer.forward


class PredictorBlock(nn.Module):
    """A residual block of the kernel predictor: two convolutions, each with its activation, and the input added."""

    def __init__(self, channels: int, kernel_size: int, slope: float) -> None:
        super().__init__()
        self.conv1 = Conv1d(channels, channels, kernel_size, post=leaky_relu(slope))
        self.conv2 = Conv1d(channels, channels, kernel_size, post=leaky_relu(slope))

    def network(self, run: Trace, x: Value) -> Value:
        """[B, C, L] -> [B, C, L]."""
        return run.add(run(self.conv2, run(self.conv1, x)), x)


class KernelPredictor(nn.Module):
    """Log-mel -> kernels and biases for every frame (UnivNet, arXiv 2106.07889, section 2.1)."""

    def __init__(
        self,
        num_mels: int,
        hidden: int,
        *,
        blocks: int,
        kernel_size: int,
        slope: float,
        layers: int,
        channels: int,
        taps: int,
    ) -> None:
        super().__init__()
        self.input_conv = Conv1d(num_mels, hidden, 5, post=leaky_relu(slope))
        self.blocks = [PredictorBlock(hidden, kernel_size, slope) for _ in range(blocks)]
        self.resblocks = nn.ModuleList(self.blocks)
        self.kernel_conv = KernelConv(hidden, layers, channels, 2 * channels, taps, kernel_size)
        self.bias_conv = Conv1d(hidden, layers * 2 * channels, kernel_size)

    def network(self, run: Trace, mel: Value) -> tuple[Value, Value]:
        """[B, num_mels, L] -> what the kernels come from [B, hidden, L], and all biases [B, layers * C_out, L]."""
        h = run(self.input_conv, mel)
        for block in self.blocks:
            h = block.network(run, h)
        return h, run(self.bias_conv, h)


class LvcLayer(Layer, nn.Module):
    """x + gate(lvc(act(conv(act(x))))) with a dilated convolution and kernels that come from outside.

    The op itself takes what `conv` made [B, C, L * hop], and kernels [B, K, C, 2 C, L], biases [B, 2 C, L] and x.
    """

    MORE = 3

    def __init__(self, channels: int, kernel_size: int, dilation: int, slope: float, hop: int) -> None:
        super().__init__()
        act = leaky_relu(slope)
        self.conv = Conv1d(channels, channels, kernel_size, dilation=dilation, pre=act, post=act)
        self._params = op.LvcParams(hop, kernel_size)
        self.prepared = Prepared(op.OP, self.params, self._tensors)

    def params(self) -> op.LvcParams:
        """The op's view of this layer."""
        return self._params

    def _tensors(self) -> list[Tensor]:
        # The kernels come with the call; the layer's own weight stands for its device and dtype.
        return [self.conv.weight]

    def width(self) -> int:
        return self.conv.width()

    def per_step(self) -> tuple[int, ...]:
        return self._params.hop, self._params.hop, 1
