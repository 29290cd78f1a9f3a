"""What a layer takes on a GPU, estimated from what its kernels do: no device is needed.

The constants of `devices.json` were chosen by arithmetic; `estimate.py --correct` brings them to what a device
measured. A launch takes the longest of what its multipliers need at their rate, what the cache or the memory needs for
its bytes, and what one block waits for its own steps, times the waves of blocks. In SI units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stage_cost
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fastvoc.runtime.registry import Cost

if TYPE_CHECKING:  # Triton comes in with it
    from fastvoc.kernels.launch import Launch

FILE = Path(__file__).parent / "devices.json"
_CYCLES = 16  # of a thread of a plain kernel for eight products
_CONFLICTS = 3.5  # turns in which a warp gets its values where they share banks of shared memory


@dataclass(frozen=True)
class Device:
    """What a kind of GPU does in a second, and what it takes.

    tensor, mma: products of 16 bits by wgmma and by mma.sync, in FLOP; fma: float32 products of Triton's tiles; scalar:
    those of plain kernels. memory, cache: bytes read or written. node: a kernel in a graph. fetch: a tile out of the
    cache. barrier: a step of our LSTM; recurrent: of cuDNN's in float32. factors: measured over estimated, by
    implementation and op.
    """

    name: str
    multiprocessors: int
    clock: float
    shared: int
    cache_bytes: float
    tensor: float
    mma: float
    fma: float
    scalar: float
    memory: float
    cache: float
    node: float
    fetch: float
    barrier: float
    recurrent: float
    factors: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, target: str) -> Device:
        """The constants of `sm_90` and the like."""
        known: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
        return cls(**known[target])

    def write(self, target: str) -> None:
        """Keeps these constants for `target`."""
        known = json.loads(FILE.read_text())
        known[target] = {each.name: getattr(self, each.name) for each in fields(self)}
        FILE.write_text(json.dumps(known, indent=1) + "\n")

    def moved(self, count: float) -> float:
        """Seconds for so many bytes: the cache's where they fit into half of it, the memory's otherwise."""
        return count / (self.cache if count < self.cache_bytes / 2 else self.memory)

    def waves(self, blocks: float, together: int = 1) -> int:
        """Rounds of blocks, `together` of which share a multiprocessor."""
        return ceil(blocks / (self.multiprocessors * together))


def size(value: Any) -> int:
    """Bytes of a tensor, 0 of anything else."""
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


@dataclass(frozen=True)
class Product:
    """Blocks that each add up a tile [rows, columns] in steps of `depth`, `stages` of which are under way.

    longest, total: steps of one block and of all. rate: FLOP a second.
    """

    rows: int
    columns: int
    depth: int
    itemsize: int
    rate: float
    blocks: int
    longest: float
    total: float
    stages: int = 4
    warps: int = 4

    def seconds(self, device: Device) -> float:
        """By the wait of one block for its own steps, by all products, or by what comes out of the cache."""
        work = 2 * self.rows * self.columns * self.depth / (self.rate / device.multiprocessors)
        read = (self.rows + self.columns) * self.depth * self.itemsize
        step = max(work, (device.fetch + work) / max(self.stages - 1, 1))
        registers = min(255, self.rows * self.columns // (32 * self.warps) + 64)
        together = min(device.shared // (self.stages * read), 65536 // (32 * self.warps * registers), 8)
        path = device.waves(self.blocks, max(together, 1)) * self.longest * step + 2 * device.fetch
        return max(path, self.total * work / device.multiprocessors, self.total * read / device.cache)


def triton(device: Device, launches: list[Launch]) -> float:
    """Seconds of a layer's launches of Triton's kernels."""
    return sum(_launch(device, each) for each in launches)


def _launch(device: Device, launch: Launch) -> float:
    tensors = {t.data_ptr(): size(t) for t in launch.arguments.values() if isinstance(t, Tensor)}
    moved, product = device.moved(sum(tensors.values())), _product(device, launch)
    return device.node + max(moved, 2 * device.fetch if product is None else product.seconds(device))


def _product(device: Device, launch: Launch) -> Product | None:
    """What a launch adds up; None of a kernel that reads every value once and has little to wait for."""
    a, blocks = launch.arguments, prod(launch.grid)
    stages, warps = launch.options.get("num_stages", 1), launch.options.get("num_warps", 4)
    if launch.name in ("conv1d_kernel", "mrf_pair_kernel"):
        pair, groups = launch.name == "mrf_pair_kernel", a["GROUPS"]
        taps = a["table"].reshape(-1, 8)[:, 2].tolist()
        by_group = [sum(taps[g::groups]) if pair else taps[g] for g in range(groups)]
        by_block = [sum(by_group)] if a["SUM"] else by_group
        steps = [each * ceil(a["CHANNELS" if pair else "CIN"] / a["BK"]) for each in by_block]
        itemsize = a["x"].element_size()
        rate = device.tensor if itemsize == 2 else device.tensor / 6 if a["PRECISION"] == "tf32x3" else device.fma
        tile = a["BT"], a["WIDTH" if pair else "BN"], a["BK"], itemsize, rate
        return Product(*tile, blocks, max(steps), blocks * sum(steps) / len(steps), stages, warps)
    if launch.name == "istft_head_kernel":
        steps = 2 * a["TAPS"] * (a["BINS_PAD"] // a["BK"])
    elif launch.name == "stft_kernel":
        steps = 2 * ceil(a["SIZE"] / a["BK"])
    else:
        return None
    return Product(a["BT"], a["BN"], a["BK"], 4, device.fma, blocks, steps, blocks * steps, stages, warps)


class Nodes(TorchDispatchMode):
    """Torch's own ops as nodes of a graph, each with what it reads and writes and its products, while `counting`."""

    _NOTHING = ("empty", "new_empty", "empty_like", "empty_strided", "detach", "alias", "lift_fresh", "_unsafe_view")

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device, self.seconds, self.count, self.counting = device, 0.0, 0, True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten":  # ops that only name others, as inference mode leaves them
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].partition(".")[0]
        if self.counting and func.namespace == "aten" and not func.is_view and name not in self._NOTHING:
            given, made = ([t for t in tree_leaves(each) if isinstance(t, Tensor)] for each in (args, out))
            flops = flop_registry.get(func._overloadpacket, lambda *_, **__: 0)
            device, moved = self._device, sum(map(size, given + made)) * (2 if "fft" in name else 1)
            done = flops(*args, **(kwargs or {}), out_val=out)
            self.seconds += device.node + max(
                device.moved(moved), _library_product(device, done, made[0]) if done else 0
            )
            self.count += 1
        return out


def _library_product(device: Device, flops: float, made: Tensor) -> float:
    """Seconds of a convolution or product by the libraries that torch calls."""
    half, count = is_half(made.dtype), made.numel()
    rows, columns, depth = (128, 64, 32) if half else (64, 64, 16)
    blocks, steps = ceil(count / (rows * columns)), ceil(flops / (2 * count * depth))
    rate = device.tensor / 2 if half else device.fma
    return Product(rows, columns, depth, made.element_size(), rate, blocks, steps, blocks * steps).seconds(device)


# Of a tile of residual blocks by channels: its rows, whether the residual stays in registers, its epilogue's cost.
_CHAINS = {
    16: (512, True, 3.5),
    32: (512, True, 2.2),
    64: (256, True, 1.6),
    128: (256, False, 1.35),
    256: (128, False, 1.2),
}
_EPILOGUE = 6400 / 2900 * 512  # of a convolution's tile, in products of a column


def chain(device: Device, params: Any, items: int, steps: int) -> float:
    """Seconds of a stage of residual blocks in tiles, as csrc/cuda/mrf_tiles.cuh cuts them."""
    channels = params.blocks[0][0][0].weight.shape[0]
    width = max(16, 1 << (channels - 1).bit_length())
    rows, keeps, epilogue = _CHAINS[width]
    if device.shared < 170 * 1024 and width == 256:
        rows = 64
    seconds = 0.0
    for block in params.blocks:
        convs = [conv for layer in block for conv in layer]
        depth = len(block[0])
        reach = [(c.weight.shape[2] - 1) * c.dilation for c in convs]
        first = 0
        while first < len(convs):
            last = len(convs) if keeps and 2 * sum(reach[first + 1 :]) <= rows else first + depth
            while last < len(convs) and 4 * sum(reach[first + 1 : last + depth]) <= rows:
                last += depth
            made = max(rows - sum(reach[first + 1 : last]), 16)
            taps = sum(c.weight.shape[2] for c in convs[first:last])
            blocks = items * ceil(steps / made)
            one = 2 * rows * width * width * taps * epilogue / (device.mma / device.multiprocessors)
            seconds += device.node + device.waves(blocks) * one
            first = last
    return seconds


def tile(device: Device, items: int, rows: int, columns: int, depth: int) -> float:
    """Seconds of a convolution as a product [rows, depth] x [depth, columns] by csrc/cuda/conv_tile.cuh."""
    blocks = items * ceil(rows / 128) * ceil(columns / 64)
    one = 2 * 128 * 64 * (depth + _EPILOGUE) / (device.mma / device.multiprocessors)
    return device.node + device.waves(blocks) * one + 2 * device.fetch


def plain(device: Device, flops: float, moved: float, depth: int = 0) -> float:
    """Seconds of a kernel whose threads each add up `depth` products for eight outputs."""
    alone = _CYCLES * depth / device.clock
    return device.node + max(flops / device.scalar, device.moved(moved), alone, 2 * device.fetch)


def cuda(device: Device, op: str, params: Any, x: Tensor, made: Tensor, cost: Cost) -> float:
    """Seconds of a layer by our CUDA kernels, which make `made` of x."""
    items, steps = x.shape[0], x.shape[2]
    half, moved = is_half(x.dtype), cost.read_bytes + cost.written_bytes
    weight = params.tensors()[0] if params.tensors() else x
    if op == "mrf":
        kinds = {params.act_before(conv).kind for conv in params.convs()}
        width = max(16, 1 << (weight.shape[0] - 1).bit_length())
        tiled = half and width in _CHAINS and (kinds == {"leaky_relu"} or (kinds == {"snake"} and width >= 64))
        staged = stage_cost.plan(device, params, items, steps) if x.dtype == torch.bfloat16 else None
        if staged is not None:
            return staged.seconds()
        if tiled and params.pad_mode != "reflect":
            return chain(device, params, items, steps)
        convs = len(params.convs())
        return convs * plain(device, 2 * cost.multiply_adds / convs, 3 * moved / 2, weight.shape[1] * weight.shape[2])
    if op in ("conv1d", "square_conv", "upsample"):
        phases = params.stride if op == "upsample" else 1
        cin, cout = (weight.shape[0], weight.shape[1]) if op == "upsample" else (weight.shape[1], weight.shape[0])
        depth = cin * ceil(weight.shape[2] / phases)
        if half and min(cin, cout) >= 16:
            return tile(device, items, ceil(made.shape[2] / phases), cout * phases, depth)
        return plain(device, 2 * cost.multiply_adds, moved, depth)
    if op == "convnext_block" and half:
        hidden, channels = params.expand_weight.shape[:2]
        two = tile(device, items, steps, hidden, channels) + tile(device, items, steps, channels, hidden)
        return plain(device, 0, 2 * size(x)) + two
    if op == "seanet_block" and half:
        convs = [params.conv1, params.conv2]
        return sum(tile(device, items, steps, c.weight.shape[0], c.weight[0].numel()) for c in convs)
    if op == "lstm":
        gates = sum(layer[0].shape[0] * layer[0].shape[1] for layer in params.layers)
        projected = plain(device, 2 * items * steps * gates, moved)
        return len(params.layers) * steps * device.barrier + projected
    if op == "istft_head":  # frames go through memory between its two kernels
        return device.node + plain(
            device, 0, moved + 2 * 4 * items * steps * params.n_fft, 32 * params.n_fft.bit_length()
        )
    if op == "stft":  # by definition, with banks of shared memory in conflict
        return plain(device, _CONFLICTS * items * made.shape[2] * params.n_fft**2, moved, params.n_fft)
    return plain(device, 2 * cost.multiply_adds, moved)


def is_half(dtype: torch.dtype) -> bool:
    """Whether it is for tensor cores."""
    return dtype in (torch.float16, torch.bfloat16)
