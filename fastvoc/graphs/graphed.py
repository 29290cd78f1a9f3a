"""A whole model as one CUDA graph for each size: what a call costs is then its kernels, not their launches.

A graph of some size serves every shorter input too: kernels mask by the items' own lengths, which lie on the device, so
that results are the same bits as without a graph. Sizes grow in steps of about 1.15, which bounds what is computed in
vain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, NoReturn, Protocol, TypedDict

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, BackendError, DtypeError, ShapeError
from fastvoc.graphs.capture import Capture, Captured, CudaCapture
from fastvoc.runtime.lengths import LengthPlan

STEP = 1.15
_PROBES = (1, 2, 4, 8, 16, 32, 64)  # lengths from which on a model's kernels may run unconditionally


class Request(NamedTuple):
    """One call, checked: `x` [B, C, T] and what it is cast to, the items' lengths, the model's further inputs.

    No tensor wants gradients. tensors: by name, with the steps per frame of their last axis, 0 where it has nothing to
    do with time. choices: what is not a tensor. finish: the user's view of the model's output [B, C_out, S].
    """

    x: Tensor
    dtype: torch.dtype
    lengths: tuple[int, ...]
    tensors: Mapping[str, tuple[Tensor, int]]
    choices: Mapping[str, Hashable]
    finish: Callable[[Tensor], Tensor]

    def kind(self) -> Hashable:
        """Equal for calls that one graph of the right size may serve."""
        if not self.tensors and not self.choices:
            return self.dtype, self.x.shape[1]
        shapes = ((n, t.dtype, t.shape[1:-1] if s else t.shape[1:], s) for n, (t, s) in self.tensors.items())
        return self.dtype, self.x.shape[1], tuple(sorted(shapes, key=str)), tuple(sorted(self.choices.items()))


class Graphable(Protocol):
    """What a graph needs to know of the model that it holds."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    def settings(self) -> Hashable:
        """What else decides which kernels run: weights, dtype, backend."""

    def weights(self) -> object:
        """What the kernels read, to be kept as long as a graph of them."""

    def blank(self, frames: int, count: int, example: Mapping[str, Any]) -> Request:
        """A request of this size, of zeros; `example` as in `Graphed.warmup`."""

    def request(self, *args: Any, **kwargs: Any) -> Request:
        """Checks a call's arguments."""

    def run(self, x: Tensor, lengths: Tensor | None, inputs: Mapping[str, Any]) -> Tensor:
        """The model: [B, C_out, S] float32, 0 beyond the lengths."""

    def samples(self, frames: int) -> int:
        """S of so many frames."""

    def check(self) -> None:
        """Raises for what kernels found wrong with the values of earlier calls."""


@cache
def bucket(frames: int, step: float = STEP) -> int:
    """The size of the graph for so many frames: 1, 2, 3, ..., each the one before times `step`, rounded up."""
    size = 1
    while size < frames:
        size = _after(size, step)
    return size


def bucket_lengths(shortest: int, longest: int, step: float = STEP) -> list[int]:
    """The sizes that serve every length from shortest to longest, for `warmup`."""
    if not 1 <= shortest <= longest:
        raise ArgumentError(f"lengths: expected 1 <= shortest <= longest, got {shortest} and {longest}")
    sizes = [bucket(shortest, step)]
    while sizes[-1] < longest:
        sizes.append(_after(sizes[-1], step))
    return sizes


def _after(size: int, step: float) -> int:
    return max(size + 1, -int(-size * step // 1))


@dataclass(frozen=True)
class Stats:
    """What graphs did so far: `graphs` held now, in `bytes`; calls that replayed one or ran `direct`; captures."""

    graphs: int
    bytes: int
    replays: int
    direct: int
    captures: int
    evictions: int


@dataclass(eq=False)
class _Graph:
    """A captured size, and the tensors that a replay reads."""

    key: _Key
    plan: LengthPlan
    x: Tensor
    tensors: dict[str, Tensor]
    weights: object
    captured: Captured[Tensor] | None
    turn: int = 0  # of its last use: the smallest goes first
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bytes(self) -> int:
        own = sum(t.numel() * t.element_size() for t in (self.x, *self.tensors.values()))
        return own + (0 if self.captured is None else self.captured.bytes)


class _Key(NamedTuple):
    """What a graph serves: calls of this kind with up to so many frames and items."""

    kind: Hashable
    size: int
    items: int


class GraphOptions(TypedDict, total=False):
    """What `Graphed` takes by name."""

    step: float
    missing: str
    capture: Capture | None


class Graphed:
    """A model that runs from graphs: `graphed(mel)` is `model(mel)`, for less work on the host.

    The bits are those of the call where the same implementations run: a graph's own size chooses them.

    model: what `fastvoc.load` returned, on a CUDA device; Vocoders take what their call takes, Codecs what their
    `decode` takes. max_mb: device memory that all graphs together may hold; the least recently used go first. step: how
    sizes grow. missing: what a call does after `warmup` for which no graph is there: "direct" runs it without one,
    "raise" raises ArgumentError. capture: what records; CUDA graphs when None.

    Before `warmup`, a size is captured when it first comes. After it nothing is captured any more, so that no call
    waits for that. Threads may share one: calls of the same size take turns. A graph keeps the weights it was
    made with: moving or casting the model makes new ones, changing weights in place wants `clear`.
    """

    def __init__(
        self,
        model: Any,
        max_mb: float = 1024.0,
        *,
        step: float = STEP,
        missing: str = "direct",
        capture: Capture | None = None,
    ) -> None:
        if not max_mb > 0 or not 1 < step <= 4:
            raise ArgumentError(f"max_mb, step: expected max_mb > 0 and 1 < step <= 4, got {max_mb} and {step}")
        if missing not in ("direct", "raise"):
            raise ArgumentError(f"missing: expected direct or raise, got {missing!r}")
        self._owner: Graphable = model.graphable()
        self._capture = CudaCapture(self._owner.device) if capture is None else capture
        self._cap, self._step, self._missing = int(max_mb * 2**20), step, missing
        self._lock, self._capturing = threading.Lock(), threading.Lock()
        self._graphs: dict[_Key, _Graph] = {}
        self._sizes: dict[Hashable, list[_Graph]] = {}
        self._turn = 0
        self._lowest: dict[Hashable, int] = {}
        self._too_large: set[_Key] = set()
        self._frozen = False
        self._counts = dict.fromkeys(("replays", "direct", "captures", "evictions"), 0)

    def __reduce__(self) -> NoReturn:
        raise DtypeError("graphs: no copies or pickles; send the model and call its `graphs` where it arrives")

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The model's call, or a codec's `decode`, with its arguments, results and errors."""
        request = self._owner.request(*args, **kwargs)
        while (graph := self._graph(request)) is not None:
            with graph.lock:
                if graph.captured is not None:  # else it has just gone
                    return request.finish(self._replay(graph, graph.captured, request))
        return request.finish(self._direct(request))

    def warmup(self, lengths: Iterable[int], batch: int | Iterable[int] = 1, **example: Any) -> Graphed:
        """Captures every one of these lengths, in frames, at every batch size, largest first; then no more.

        A call takes the smallest graph that is at most `step` times as long and less than twice as many items: see
        `bucket_lengths` for a range. `example` are the further inputs that calls will have: a tensor's name with True,
        numbers such as a `bandwidth_id` as they are.

        Raises ArgumentError when they need more memory than `max_mb`, BackendError when some layer's implementation
        reads lengths on the host.
        """
        sizes = sorted(set(lengths), reverse=True)
        batches = sorted({batch} if isinstance(batch, int) else set(batch), reverse=True)
        if not sizes or not batches or min(sizes[-1], batches[-1]) < 1:
            raise ArgumentError(f"lengths, batch: expected positive whole numbers, got {sizes} and {batches}")
        self._frozen = False
        wanted = []
        for size in sizes:
            for count in batches:
                request = self._owner.blank(size, count, example)
                wanted.append(_Key(self._kind(request), size, count))
                self._make(request, size, count)
        if gone := [key for key in wanted if key not in self._graphs]:
            held = sum(graph.bytes for graph in self._graphs.values()) / 2**20
            raise ArgumentError(
                f"max_mb: {self._cap / 2**20:g} MB hold {len(wanted) - len(gone)} of {len(wanted)} graphs"
                f" ({held:.1f} MB)"
            )
        self._frozen = True
        return self

    def clear(self) -> None:
        """Drops all graphs; sizes are captured again as they come, or by `warmup`."""
        with self._lock:
            graphs, self._frozen = list(self._graphs.values()), False
            self._graphs.clear()
            self._sizes.clear()
            self._lowest.clear()
            self._too_large.clear()
        for graph in graphs:
            _drop(graph)

    def check(self) -> None:
        """Waits for the device and raises ArgumentError when values of earlier calls were wrong, such as codes."""
        self._owner.check()

    @property
    def stats(self) -> Stats:
        """What is held, and what happened so far."""
        with self._lock:
            held = sum(graph.bytes for graph in self._graphs.values())
            return Stats(len(self._graphs), held, **self._counts)

    def _kind(self, request: Request) -> Hashable:
        return self._owner.settings(), request.kind()

    def _graph(self, request: Request) -> _Graph | None:
        """The graph for a call, made if that may be; None where it runs without one."""
        count, _, frames = request.x.shape
        longest, most = _after(frames, self._step), max(2 * count, 2)
        found: _Graph | None = None
        kind = self._kind(request)
        with self._lock:
            for graph in self._sizes.get(kind, ()):
                _, size, items = graph.key
                if frames <= size <= longest and count <= items < most:
                    found = graph if found is None or size * items < found.key.size * found.key.items else found
            if found is not None:
                self._turn = found.turn = self._turn + 1
                return None if min(request.lengths) < found.plan.lowest else found
            if self._frozen and self._missing == "raise":
                raise ArgumentError(f"graphs: none was made for {count} items of {frames} frames (missing='raise')")
            if self._frozen:
                return None
        return self._make(request, bucket(frames, self._step), count)

    def _make(self, request: Request, size: int, count: int) -> _Graph | None:
        """Captures a size; None where the memory does not suffice or an item is too short for it."""
        with self._capturing:
            kind = self._kind(request)
            key = _Key(kind, size, count)
            if key in self._graphs:
                return self._graphs[key]
            if key in self._too_large:
                return None
            graph = self._captured(request, size, count, kind)
            with self._lock:
                self._lowest[kind] = graph.plan.lowest
                self._graphs[key] = graph
                self._sizes.setdefault(kind, []).append(graph)
                self._turn = graph.turn = self._turn + 1
                self._counts["captures"] += 1
                gone = self._make_room(key)
            for old in gone:
                _drop(old)
            return None if graph in gone or min(request.lengths) < graph.plan.lowest else graph

    def _make_room(self, new: _Key) -> list[_Graph]:
        """Takes the least recently used out of the table until the rest keeps within the cap."""
        gone = []
        held = sum(graph.bytes for graph in self._graphs.values())
        if self._graphs[new].bytes > self._cap:
            self._too_large.add(new)
            self._graphs[new].turn = 0
        while held > self._cap:
            graph = min(self._graphs.values(), key=lambda graph: graph.turn)
            key = graph.key
            del self._graphs[key]
            self._sizes[key.kind].remove(graph)
            held -= graph.bytes
            gone.append(graph)
            self._counts["evictions"] += 1
            if key == new:
                break
        return gone

    @torch.inference_mode()
    def _captured(self, request: Request, size: int, count: int, kind: Hashable) -> _Graph:
        device = self._owner.device
        with torch.inference_mode(False):  # what calls write into, without that mode
            x = torch.zeros((count, request.x.shape[1], size), dtype=request.dtype, device=device)
            tensors = {name: _room(t, steps * size, count, device) for name, (t, steps) in request.tensors.items()}
        inputs = {**request.choices, **tensors}
        for lowest in [self._lowest[kind]] if kind in self._lowest else [n for n in _PROBES if n <= size] or [size]:
            with torch.inference_mode(False):
                plan = LengthPlan(count, lowest, size, device)
            try:
                with plan.running():
                    self._owner.run(x, plan.lengths(), inputs)
                break
            except (ShapeError, BackendError) as error:  # for items as short as this
                problem: Exception | None = error
        else:
            assert problem is not None
            raise problem
        plan.freeze()

        @torch.inference_mode()
        def run() -> Tensor:
            plan.fill()
            with plan.running():
                return self._owner.run(x, plan.lengths(), inputs)

        return _Graph(_Key(kind, size, count), plan, x, tensors, self._owner.weights(), self._capture(run))

    def _replay(self, graph: _Graph, captured: Captured[Tensor], request: Request) -> Tensor:
        given, x, plan = request.x, graph.x, graph.plan
        count, _, frames = given.shape
        with captured.in_order():
            x = x if count == plan.batch else x.narrow(0, 0, count)
            x = x if frames == plan.highest else x.narrow(2, 0, frames)
            x.copy_(given, non_blocking=True)
            for name, (t, steps) in request.tensors.items():
                room = graph.tensors[name][:count]
                (room[..., : t.shape[-1]] if steps else room).copy_(t, non_blocking=True)
            plan.set(request.lengths + (plan.lowest,) * (plan.batch - count))
            y: Tensor = captured.replay()
            y = y if count == plan.batch else y.narrow(0, 0, count)
            out = _ordinary(y if frames == plan.highest else y.narrow(2, 0, self._owner.samples(frames)))
        with self._lock:
            self._counts["replays"] += 1
        return out

    @torch.inference_mode()
    def _direct(self, request: Request) -> Tensor:
        with self._lock:
            self._counts["direct"] += 1
        frames = request.x.shape[2]
        lengths = None if set(request.lengths) == {frames} else torch.tensor(request.lengths, device="cpu")
        inputs = {**request.choices, **{name: t for name, (t, _) in request.tensors.items()}}
        return _ordinary(self._owner.run(request.x, lengths, inputs))


def _room(t: Tensor, steps: int, count: int, device: torch.device) -> Tensor:
    """Zeros for a further input of `count` items, with `steps` steps where it has a time axis."""
    shape = (*t.shape[1:-1], steps) if steps else t.shape[1:]
    return torch.zeros((count, *shape), dtype=t.dtype, device=device)


def _ordinary(y: Tensor) -> Tensor:
    """A copy that may be changed in place, whatever mode is on."""
    if not torch.is_inference_mode_enabled():
        return y.clone()
    with torch.inference_mode(False):
        return y.clone()


def _drop(graph: _Graph) -> None:
    with graph.lock:
        if graph.captured is not None:
            graph.captured.drop()
            graph.captured = None
