"""Finds the HiFi-GAN in an ONNX graph by its structure, from the waveform's Tanh backwards; names mean nothing.

Exporters name, merge and order nodes as they like, so values are followed, never counted: equal LeakyRelus are one
node, a residual and a sum over blocks are both Add, the bias of the last convolution may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastvoc.checkpoints.onnx_graph import Array, Graph, Node

_MOST = 64  # blocks of a stage, convolutions of a block, stages
_MOVES = ("Transpose", "Squeeze", "Unsqueeze")  # change no value before the decoder
_SIMPLE = (  # change values one by one, or where they lie: no layers that would make a latent
    *_MOVES,
    *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Exp", "Log", "Min", "Max", "Sum", "Mean", "Reciprocal"),
    *("Clip", "Relu", "LeakyRelu", "Tanh", "Sigmoid", "Where", "Cast", "Round", "Floor", "Ceil"),
    *("Pad", "Slice", "Concat", "Reshape", "Flatten", "Expand", "Shape"),
)


class NoDecoderError(Exception):
    """The graph holds no decoder that can be read; says what was found in its place."""


class Conv(NamedTuple):
    """A convolution: what it reads, its weight [O, I, K] (transposed [I, O, K]) and bias, and how it goes."""

    x: str
    weight: Array
    bias: Array | None
    kernel: int
    dilation: int


class _Block(NamedTuple):
    root: str
    steps: list[tuple[Conv, ...]]

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        return self.steps[0][0].kernel, tuple(step[0].dilation for step in self.steps)


class _Stage(NamedTuple):
    up: Conv
    rate: int
    padding: int
    extra: int
    blocks: list[_Block]


@dataclass(frozen=True)
class Decoder:
    """A HiFi-GAN in a graph.

    `values` are fields of `HifiGanConfig`, `tensors` its model's state by name. `input`, `speaker` (None without) and
    `output` are the names of the values that it reads and makes in the graph; `given`: the input is the graph's own,
    but for a normalisation by constants, so a mel; otherwise layers of the graph make it, so a latent.
    """

    values: dict[str, Any]
    tensors: dict[str, Array]
    input: str
    speaker: str | None
    output: str
    given: bool


def find_decoder(graph: Graph) -> Decoder:
    """The one decoder in a graph. Raises NoDecoderError when there is none, or more than one."""
    ends = [node for node in graph.nodes if node.op == "Tanh" and _makes_waveform(graph, node)]
    read = [_read(graph, end) for end in ends]
    found = [decoder for decoder in read if isinstance(decoder, Decoder)]
    problems = [problem for problem in read if isinstance(problem, NoDecoderError)]
    if len(found) > 1:
        raise NoDecoderError(f"{len(found)} decoders, that make {', '.join(repr(d.output) for d in found)}")
    if found:
        return found[0]
    if problems:
        raise problems[-1]
    ops = graph.ops()
    kinds = ", ".join(f"{ops[op]} {op}" for op in ("Tanh", "Conv", "ConvTranspose", "LeakyRelu"))
    raise NoDecoderError(f"no Tanh after a convolution to one channel (it has {kinds})")


def _read(graph: Graph, end: Node) -> Decoder | NoDecoderError:
    try:
        return _Reader(graph).read(end)
    except NoDecoderError as error:
        return error


def _makes_waveform(graph: Graph, tanh: Node) -> bool:
    node = graph.maker(tanh.inputs[0]) if tanh.inputs else None
    if node is None or node.op != "Conv" or len(node.inputs) < 2:
        return False
    weight = graph.constant(node.inputs[1])
    return weight is not None and weight.ndim > 2 and weight.shape[0] == 1


@dataclass
class _Reader:
    graph: Graph
    slopes: set[float] = field(default_factory=set)

    def read(self, end: Node) -> Decoder:
        post = self._conv(end.inputs[0])
        final, x = self._leaky(post.x, "conv_post")
        stages: list[_Stage] = []
        while not self._is_start(x):
            if len(stages) == _MOST:
                raise NoDecoderError(f"more than {_MOST} stages")
            stage = self._stage(x)
            stages.insert(0, stage)
            slope, x = self._leaky(stage.up.x, "a transposed convolution")
            self.slopes.add(slope)
        if not stages:
            raise NoDecoderError("no transposed convolution before the waveform")
        if len(self.slopes) != 1:
            raise NoDecoderError(f"LeakyRelus of slopes {sorted(self.slopes)}, expected one slope in all stages")
        pre, shift, cond = self._start(x)
        tensors = dict(_tensors("conv_pre", pre if shift is None else _shifted(pre, shift)))
        values = self._values(stages, tensors)
        tensors |= dict(_tensors("conv_post", post))
        table = None
        if cond is not None:
            tensors |= dict(_tensors("cond", cond))
            table = self._table(cond.x, cond.weight.shape[1])
            if table is not None:
                tensors["emb_g.weight"] = table
        given, normal = self._front(pre.x, pre.weight.shape[1])
        if normal is not None:
            tensors["mean"], tensors["scale"] = normal
        values |= {
            "num_mels": pre.weight.shape[1],
            "upsample_initial_channel": pre.weight.shape[0],
            "leaky_relu_slope": self.slopes.pop(),
            "final_leaky_relu_slope": final,
            "pre_kernel_size": pre.kernel,
            "post_kernel_size": post.kernel,
            "post_bias": post.bias is not None,
            "normalize_before": normal is not None,
            "gin_channels": 0 if cond is None else cond.weight.shape[1],
            "num_speakers": 0 if table is None else len(table),
        }
        return Decoder(values, tensors, pre.x, None if cond is None else cond.x, end.outputs[0], given)

    def _values(self, stages: list[_Stage], tensors: dict[str, Array]) -> dict[str, Any]:
        """What the stages say of the configuration; adds their tensors, blocks in the order of the first stage."""
        keys = [block.key for block in stages[0].blocks]
        pairs = {len(step) for stage in stages for block in stage.blocks for step in block.steps}
        if len(pairs) != 1:
            raise NoDecoderError("residual blocks of both kinds")
        number = 0
        for i, stage in enumerate(stages):
            tensors |= dict(_tensors(f"ups.{i}", stage.up))
            left = list(stage.blocks)
            for key in keys:
                block = next((block for block in left if block.key == key), None)
                if block is None or len(stage.blocks) != len(keys):
                    found = [block.key for block in stage.blocks]
                    raise NoDecoderError(f"stage {i} has blocks (kernel, dilations) {found}, the first has {keys}")
                left.remove(block)
                lists = ("convs",) if pairs == {1} else ("convs1", "convs2")
                for m, step in enumerate(block.steps):
                    for name, conv in zip(lists, step, strict=True):
                        tensors |= dict(_tensors(f"resblocks.{number}.{name}.{m}", conv))
                number += 1
        kernels = [stage.up.kernel for stage in stages]
        paddings, extras = [stage.padding for stage in stages], [stage.extra for stage in stages]
        usual = [(k - stage.rate) // 2 for k, stage in zip(kernels, stages, strict=True)]
        return {
            "resblock": "2" if pairs == {1} else "1",
            "upsample_rates": tuple(stage.rate for stage in stages),
            "upsample_kernel_sizes": tuple(kernels),
            "upsample_paddings": None if paddings == usual else tuple(paddings),
            "upsample_output_paddings": tuple(extras) if any(extras) else None,
            "resblock_kernel_sizes": tuple(kernel for kernel, _ in keys),
            "resblock_dilation_sizes": tuple(dilations for _, dilations in keys),
        }

    def _is_start(self, name: str) -> bool:
        """Whether a value is that of `conv_pre`, with a speaker's shift or without."""
        node = self.graph.maker(name)
        if node is None or node.op != "Add":
            return node is not None and node.op == "Conv"
        convs = [self._made_by(x, "Conv") for x in node.inputs]
        fixed = [self.graph.constant(x) is not None for x in node.inputs]
        return all(convs) or (any(convs) and any(fixed))

    def _start(self, name: str) -> tuple[Conv, Array | None, Conv | None]:
        """`conv_pre`, a constant to add to its bias, and `cond`."""
        node = self._node(name, "a convolution or the sum of two")
        if node.op == "Conv":
            return self._conv(name), None, None
        shifts = [value for x in node.inputs if (value := self.graph.constant(x)) is not None]
        convs = [self._conv(x) for x in node.inputs if self._made_by(x, "Conv")]
        if shifts:
            return convs[0], shifts[0], None
        wide = [conv for conv in convs if conv.kernel > 1]
        cond = [conv for conv in convs if conv.kernel == 1]
        if len(wide) != 1 or len(cond) != 1:
            raise NoDecoderError(f"{node} adds convolutions of kernels {[conv.kernel for conv in convs]}")
        return wide[0], None, cond[0]

    def _stage(self, name: str) -> _Stage:
        total, count = self._mean(name)
        blocks = [self._block(term) for term in self._terms(total)]
        if abs(count - len(blocks)) > 1e-4 * len(blocks):
            raise NoDecoderError(f"a sum of {len(blocks)} blocks that is divided by {count:g}")
        if len({block.root for block in blocks}) != 1:
            raise NoDecoderError("residual blocks of one sum that begin at different values")
        node = self._node(blocks[0].root, "a ConvTranspose")
        if node.op != "ConvTranspose":
            raise NoDecoderError(f"expected a ConvTranspose before the residual blocks, found {node}")
        self._check(node, {"group": (1,), "dilations": (1,), "output_shape": ()})
        weight, bias = self._parameters(node, outputs=1)
        pads = node.integers("pads", (0, 0))
        rate, extra = _one(node, "strides", 1), _one(node, "output_padding", 0)
        if len(pads) != 2 or not 0 <= pads[0] - pads[1] < rate:
            wanted = f"expected two, the second less by 0 to {rate - 1}"
            raise NoDecoderError(f"pads {list(pads)}, {wanted}, in {node}")
        extra += pads[0] - pads[1]  # either way there is more at the end
        return _Stage(Conv(node.inputs[0], weight, bias, weight.shape[2], 1), rate, pads[0], extra, blocks)

    def _mean(self, name: str) -> tuple[str, float]:
        """The sum behind a division by a constant, or a product with one, and the divisor; 1 without."""
        node = self.graph.maker(name)
        if node is None or node.op not in ("Div", "Mul"):
            return name, 1.0
        for x, other in (node.inputs, node.inputs[::-1]) if node.op == "Mul" else (node.inputs,):
            value = self.graph.constant(other)
            if value is not None and value.size == 1 and value.item():
                return x, float(value.item()) if node.op == "Div" else 1 / float(value.item())
        raise NoDecoderError(f"expected a constant number in {node}")

    def _terms(self, name: str) -> list[str]:
        """The blocks of a sum in its order. A residual has one operand that a convolution makes, a sum has none."""
        stack, found = [name], []
        while stack:
            at = stack.pop()
            node = self.graph.maker(at)
            convs = 0 if node is None else sum(self._made_by(x, "Conv") for x in node.inputs)
            if node is not None and node.op in ("Add", "Sum") and not convs:
                stack.extend(reversed(node.inputs))
            else:
                found.append(self.graph.source(at))
            if len(stack) + len(found) > _MOST:
                raise NoDecoderError(f"a sum of more than {_MOST} blocks")
        return found

    def _block(self, name: str) -> _Block:
        """The residual block that ends in a value."""
        steps: list[tuple[Conv, ...]] = []
        at = name
        while (node := self.graph.maker(at)) is not None and node.op == "Add":
            made = [self._made_by(x, "Conv") for x in node.inputs]
            if len(node.inputs) != 2 or sum(made) != 1 or len(steps) == _MOST:
                raise NoDecoderError(f"expected the sum of a convolution and what it began with, found {node}")
            skip, last = node.inputs[made.index(False)], self._conv(node.inputs[made.index(True)])
            skip = self.graph.source(skip)
            x = self._slope(last.x)
            step: tuple[Conv, ...] = (last,)
            if x != skip:
                first = self._conv(x)
                if self._slope(first.x) != skip:
                    raise NoDecoderError(f"a residual that does not add what it began with: {node}")
                if last.dilation != 1 or last.kernel != first.kernel:
                    raise NoDecoderError(f"a pair of convolutions of another kind before {node}")
                step = first, last
            steps.insert(0, step)
            at = skip
        if not steps:
            raise NoDecoderError(f"expected a residual block, found {'a value from outside' if node is None else node}")
        if len({conv.kernel for step in steps for conv in step}) != 1 or len({len(step) for step in steps}) != 1:
            raise NoDecoderError(f"a residual block of unlike convolutions, that makes {name!r}")
        return _Block(at, steps)

    def _slope(self, name: str) -> str:
        slope, x = self._leaky(name, "a convolution of a residual block")
        self.slopes.add(slope)
        return x

    def _leaky(self, name: str, before: str) -> tuple[float, str]:
        """Slope and input of the LeakyRelu that makes a value."""
        node = self._node(name, f"a LeakyRelu before {before}")
        if node.op != "LeakyRelu":
            raise NoDecoderError(f"expected a LeakyRelu before {before}, found {node}")
        slope = float(str(np.float32(node.number("alpha", 0.01))))  # the file has 0.1 as a float32
        return slope, self.graph.source(node.inputs[0])

    def _conv(self, name: str) -> Conv:
        """The convolution that makes a value: stride 1, one group, as many steps as it reads."""
        node = self._node(name, "a Conv")
        if node.op != "Conv":
            raise NoDecoderError(f"expected a Conv, found {node}")
        self._check(node, {"group": (1,), "strides": (1,)}, same=True)
        weight, bias = self._parameters(node, outputs=0)
        dilation, kernel = _one(node, "dilations", 1), weight.shape[2]
        reach = dilation * (kernel - 1)
        wanted = (0, 0) if node.text("auto_pad", "NOTSET").startswith("SAME") else (reach // 2, reach // 2)
        if reach % 2 or node.integers("pads", (0, 0)) != wanted:
            pads = list(node.integers("pads", (0, 0)))
            raise NoDecoderError(
                f"kernel {kernel}, dilation {dilation} and pads {pads}, which change the length: {node}"
            )
        return Conv(node.inputs[0], weight, bias, kernel, dilation)

    def _parameters(self, node: Node, outputs: int) -> tuple[Array, Array | None]:
        """Weight and bias, constants of fitting shapes; axis `outputs` of the weight has the channels it makes."""
        values = [self.graph.constant(name) if name else None for name in (*node.inputs[1:3], "")[:2]]
        weight, bias = values
        if weight is None or weight.ndim != 3 or 0 in weight.shape:
            shape = "computed while it runs" if weight is None else f"of shape {list(weight.shape)}"
            raise NoDecoderError(f"expected a constant weight of rank 3, found one {shape} in {node}")
        if len(node.inputs) > 2 and node.inputs[2] and (bias is None or bias.shape != (weight.shape[outputs],)):
            raise NoDecoderError(f"expected a constant bias [{weight.shape[outputs]}] in {node}")
        return weight, bias

    def _check(self, node: Node, wanted: dict[str, tuple[int, ...]], *, same: bool = False) -> None:
        for name, value in wanted.items():
            got = node.attributes.get(name, value)
            got = (got,) if isinstance(got, int) else tuple(got) if isinstance(got, list | tuple) else got
            if got != value:
                raise NoDecoderError(f"{name} {got}, expected {value}, in {node}")
        padding = node.text("auto_pad", "NOTSET")
        if padding != "NOTSET" and not (same and padding.startswith("SAME")):
            raise NoDecoderError(f"auto_pad {padding!r} in {node}")

    def _node(self, name: str, expected: str) -> Node:
        node = self.graph.maker(name)
        if node is None:
            raise NoDecoderError(f"expected {expected}, found {name!r}, which no node makes")
        return node

    def _made_by(self, name: str, op: str) -> bool:
        node = self.graph.maker(name)
        return node is not None and node.op == op

    def _table(self, name: str, size: int) -> Array | None:
        """The table [N, size] out of which the speakers' vectors come, None where they come from elsewhere."""
        node = self.graph.maker(name)
        while node is not None and node.op in ("Unsqueeze", "Squeeze", "Transpose", "Reshape"):
            node = self.graph.maker(node.inputs[0])
        if node is None or node.op != "Gather" or node.integer("axis", 0):
            return None
        table = self.graph.constant(node.inputs[0])
        return table if table is not None and table.ndim == 2 and table.shape[1] == size else None

    def _front(self, name: str, bands: int) -> tuple[bool, tuple[Array, Array] | None]:
        """Whether the decoder reads an input of the graph, and the mean and scale that it is normalised by before.

        Raises NoDecoderError where that input is changed in a way that the model cannot.
        """
        gain, offset = np.ones(bands), np.zeros(bands)
        touched = False
        while (node := self.graph.maker(name)) is not None:
            if node.op in _MOVES:
                name = node.inputs[0]
                continue
            step = self._linear(node, bands)
            if step is None:
                if len(self._simple_inputs(name)) == 1:
                    wanted = f"expected one constant, or {bands}, added, subtracted or multiplied"
                    raise NoDecoderError(f"{node} changes what the decoder is given; {wanted}")
                return False, None
            name, factor, shift = step
            offset, gain, touched = offset + gain * shift, gain * factor, True
        if self.graph.source(name) not in self.graph.inputs:
            return False, None
        if not touched:
            return True, None
        if not gain.all() or not np.isfinite([gain, offset]).all():
            raise NoDecoderError("constants before the decoder that leave nothing of what it is given")
        return True, (-offset / gain, 1 / gain)  # the graph computes gain * x + offset, the model (x - mean) / scale

    def _linear(self, node: Node, bands: int) -> tuple[str, Array, Array] | None:
        """What a node reads, the constant it multiplies it with and the one it adds; None for any other node."""
        one, zero = np.ones(1), np.zeros(1)
        if node.op == "Neg":
            return node.inputs[0], -one, zero
        if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
            return None
        for first, (x, other) in ((True, node.inputs), (False, node.inputs[::-1])):
            value = self.graph.constant(other)
            if value is None or value.size not in (1, bands) or (node.op == "Div" and not (first and value.all())):
                continue
            value = value.astype(np.float64).reshape(-1)
            if node.op == "Add":
                return x, one, value
            if node.op == "Sub":
                return (x, one, -value) if first else (x, -one, value)
            return x, value if node.op == "Mul" else 1 / value, zero
        return None

    def _simple_inputs(self, name: str) -> set[str]:
        """The graph's inputs of which a value is made value by value; none where layers or chance make it."""
        found: set[str] = set()
        stack, seen = [name], set[str]()
        while stack:
            at = self.graph.source(stack.pop())
            if not at or at in seen or self.graph.constant(at) is not None:
                continue
            seen.add(at)
            node = self.graph.maker(at)
            if node is None:
                found.add(at)
            elif node.op in _SIMPLE:
                stack.extend(node.inputs)
            else:
                return set()
        return found


def _one(node: Node, name: str, default: int) -> int:
    """An attribute of one integer for the one axis of time."""
    values = node.integers(name, (default,))
    if len(values) != 1:
        raise NoDecoderError(f"{name} {list(values)}, expected one value, in {node}")
    return values[0]


def _tensors(module: str, conv: Conv) -> Iterator[tuple[str, Array]]:
    yield f"{module}.weight", conv.weight
    if conv.bias is not None:
        yield f"{module}.bias", conv.bias


def _shifted(conv: Conv, shift: Array) -> Conv:
    """A convolution with a constant added to its bias. Raises NoDecoderError when that has more than its channels."""
    channels = conv.weight.shape[0]
    if shift.size not in (1, channels) or (shift.size > 1 and shift.shape[-2:] != (channels, 1)):
        raise NoDecoderError(f"a constant of shape {list(shift.shape)} added to a convolution of {channels} channels")
    bias = np.zeros(channels) if conv.bias is None else conv.bias.astype(np.float64)
    return conv._replace(bias=bias + shift.astype(np.float64).reshape(-1))
