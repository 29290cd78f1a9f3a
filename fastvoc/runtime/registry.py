"""Which implementation of an op runs, and why the others do not.

The choice follows, in this order: the `backend=` argument, `use_backend(...)`, the variable FASTVOC_BACKEND, the times
of the device's table (`fastvoc.runtime.choice`), and, where that has none, the priority of the implementations. A
forced backend never falls back: when it refuses, `BackendError` gives the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from fastvoc.errors import BackendError
from fastvoc.runtime import choice, env
from fastvoc.runtime.autocast import without_autocast

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")
BACKENDS = ("torch", "cpp", "triton", "cuda")


@dataclass(frozen=True)
class Spec:
    """What a call asks of an implementation: device type, dtype of the activations, and the op's own parameters.

    capability: of a CUDA device, times ten; size: of the call, None where it must not count.
    """

    device: str
    dtype: torch.dtype
    params: Any
    capability: int | None = None
    size: choice.Size | None = None

    @classmethod
    def on(cls, device: torch.device, dtype: torch.dtype, params: object) -> Spec:
        """What the call that runs now asks on a device."""
        return cls(device.type, dtype, params, choice.capability(device), size())


def _accept(_: Spec) -> str | None:
    return None


def _as_given(params: Any) -> Any:
    return params


@dataclass(frozen=True)
class Impl:
    """One implementation of an op.

    `pack` turns the op's parameters into what `run` wants (packed weights); `supports` returns None or the reason for
    which it refuses a call. `stream` makes the op's state for a signal in chunks, from parameters and packed weights
    (see `fastvoc.ops.stream`), where the op has such a form. `pack_exact` takes the place of `pack` under `use_exact`,
    for all parameters or those of which `differs` says that it packs something else.
    `bind` makes of packed weights what runs the op unchecked on x and its further arguments, all given, lengths on x's
    device; `either` tells that x may then be float32 or bfloat16 whatever the weights are.
    """

    name: str
    run: Callable[..., torch.Tensor]
    devices: frozenset[str]
    priority: int
    pack: Callable[[Any], Any] = _as_given
    supports: Callable[[Spec], str | None] = _accept
    stream: Callable[[Any, Any], Any] | None = None
    pack_exact: Callable[[Any], Any] | None = None
    differs: Callable[[Any], bool] | None = None
    bind: Callable[[Any], Callable[..., torch.Tensor]] | None = None
    either: bool = False

    def same(self, params: object) -> bool:
        """Whether `use_exact` changes nothing."""
        return self.pack_exact is None or (self.differs is not None and not self.differs(params))

    def packed(self, params: object, exact: bool) -> Any:
        """The op's parameters as `run` wants them."""
        return (self.pack_exact if exact and self.pack_exact is not None else self.pack)(params)


@dataclass(frozen=True)
class Verdict:
    """Whether one implementation takes a call: `reason` is None when it does."""

    impl: str
    reason: str | None
    chosen: bool


class Params(Protocol):
    """Parameters of an op: its weights and its shape."""

    def tensors(self) -> Sequence[torch.Tensor]:
        """The tensors among them."""


class Cost(NamedTuple):
    """What a call takes: multiply-adds of the direct algorithm, and bytes, each tensor read or written once.

    Products of weights and transforms count, functions of single values and sums do not.
    """

    multiply_adds: int
    read_bytes: int
    written_bytes: int


@dataclass
class Op:
    """A named operation: its check of a call `check(x, params, ...)`, its torch reference, and its implementations.

    `work` takes the same and gives the multiply-adds of a call and its output, on device meta.
    """

    name: str
    check: Callable[..., None]
    reference: Callable[..., torch.Tensor]
    work: Callable[..., tuple[int, torch.Tensor]]
    impls: dict[str, Impl] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Callable[[str], Op], tuple[str]]:
        return _defined, (self.name,)

    @without_autocast
    def __call__(
        self, x: torch.Tensor, params: Any, *args: Any, backend: str | None = None, **named: Any
    ) -> torch.Tensor:
        """The op on x, its parameters, and its further inputs as its reference takes them.

        Checks the call, then runs the reference where autograd must see it, else the chosen implementation; `backend`
        forces one.

        Raises:
            ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        if named:
            bound = signature(self.reference).bind(x, params, *args, **named)
            bound.apply_defaults()
            args = bound.args[2:]
        self.check(x, params, *args)
        if wants_grad(x, *params.tensors(), *(a for a in args if isinstance(a, torch.Tensor))):
            return self.reference(x, params, *args)
        impl = self.select(Spec.on(x.device, x.dtype, params), backend)
        return impl.run(x, impl.packed(params, exact()), *args)

    def cost(self, x: torch.Tensor, params: Params, *args: object) -> Cost:
        """What a call with these arguments takes; their values do not count, so that they may be on device meta."""
        multiply_adds, made = self.work(x, params, *args)
        read = [x, *params.tensors(), *(a for a in args if isinstance(a, torch.Tensor))]
        return Cost(multiply_adds, sum(map(_bytes, read)), _bytes(made))

    def register(self, impl: Impl) -> None:
        """Adds an implementation; its name must be one of `BACKENDS` and new to this op."""
        if impl.name not in BACKENDS or impl.name in self.impls:
            raise ValueError(f"implementation {impl.name!r} of {self.name} is unknown or registered twice")
        self.impls[impl.name] = impl

    def verdicts(self, spec: Spec, backend: str | None = None) -> list[Verdict]:
        """What every implementation says of a call, best first, with the one that would run marked."""
        forced = backend or requested(self.name)
        rows: list[tuple[str, str | None]] = []
        for impl in sorted(self.impls.values(), key=lambda i: -i.priority):
            if forced is not None and impl.name != forced:
                reason: str | None = f"backend {forced!r} is forced"
            elif spec.device not in impl.devices:
                reason = f"runs on {', '.join(sorted(impl.devices))}, not on {spec.device}"
            else:
                reason = impl.supports(spec)
            rows.append((impl.name, reason))
        if (times := self.times(spec)) is not None:
            order = times.order([name for name, reason in rows if reason is None])
            rows.sort(key=lambda row: order.index(row[0]) if row[1] is None else len(order))
        chosen = next((name for name, reason in rows if reason is None), None)
        return [Verdict(name, reason, name == chosen) for name, reason in rows]

    def by_size(self, spec: Spec, backend: str | None = None) -> list[tuple[choice.Row, str]]:
        """What the device's table says of a layer at each of its sizes, and the implementation that runs there."""
        table = None if spec.capability is None else choice.table(spec.capability)
        rows = []
        for size in () if table is None else table.sizes:
            there = replace(spec, size=size)
            chosen = next((verdict.impl for verdict in self.verdicts(there, backend) if verdict.chosen), None)
            if (row := self.times(there)) is not None and chosen is not None:
                rows.append((row, chosen))
        return rows

    def times(self, spec: Spec) -> choice.Row | None:
        """What the device's table says of a call, None where it says nothing."""
        table = None if spec.capability is None else choice.table(spec.capability)
        if table is None or spec.size is None:
            return None
        return table.row(self.layer(spec.dtype, spec.params), spec.size)

    def layer(self, dtype: torch.dtype, params: Params) -> choice.Layer:
        """What tables know a layer by, whose first input has this dtype."""
        tensors = params.tensors()
        return choice.Layer(self.name, dtype.itemsize, tuple(tensors[0].shape) if tensors else ())

    def select(self, spec: Spec, backend: str | None = None) -> Impl:
        """The implementation that runs a call. Raises BackendError when a forced one refuses or is absent."""
        forced = backend or requested(self.name)
        if forced is not None and forced not in self.impls:
            known = ", ".join(self.impls)
            raise BackendError(f"{self.name} has no implementation {forced!r}; there are: {known}")
        rows = self.verdicts(spec, forced)
        for row in rows:
            if row.chosen:
                return self.impls[row.impl]
        why = "; ".join(f"{row.impl}: {row.reason}" for row in rows if forced is None or row.impl == forced)
        raise BackendError(f"no implementation of {self.name} takes this call ({why})")


OPS: dict[str, Op] = {}
_override: ContextVar[str | None] = ContextVar("fastvoc_backend", default=None)
_exact: ContextVar[bool] = ContextVar("fastvoc_exact", default=False)


def define(
    name: str,
    check: Callable[..., None],
    reference: Callable[..., torch.Tensor],
    work: Callable[..., tuple[int, torch.Tensor]],
    stream: Callable[[Any, Any], Any] | None = None,
) -> Op:
    """Creates an op, with its reference as implementation `torch`, and puts it in the table.

    The reference and its streams compute as outside of autocast.
    """
    if name in OPS:
        raise ValueError(f"op {name} is defined twice")
    reference = without_autocast(reference)

    def streamed(params: Any, packed: Any) -> Any:
        assert stream is not None
        state = stream(params, packed)
        state.step = without_autocast(state.step)
        return state

    OPS[name] = Op(name, check, reference, work)
    OPS[name].register(Impl("torch", reference, frozenset({"cpu", "cuda"}), priority=0, stream=stream and streamed))
    return OPS[name]


def _bytes(t: torch.Tensor) -> int:
    return t.numel() * t.element_size()


def _defined(name: str) -> Op:
    """What a copied or unpickled `Op` is: the op of this process."""
    import_module(f"fastvoc.ops.{name}")
    return OPS[name]


def parse_backend(text: str, argument: str) -> dict[str, str]:
    """Reads `cpp` or `mrf=cpp,*=torch` into {op or "*": backend}. Raises BackendError naming `argument`."""
    table: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        op, _, name = part.rpartition("=")
        if name not in BACKENDS:
            raise BackendError(f"{argument}: unknown backend {name!r}; expected one of {', '.join(BACKENDS)}")
        table[op or "*"] = name
    return table


def requested(op: str) -> str | None:
    """The backend that `use_backend` or FASTVOC_BACKEND forces for an op, or None."""
    for argument, text in (("use_backend", _override.get()), (env.BACKEND.name, env.BACKEND.get())):
        if text:
            table = parse_backend(text, argument)
            name = table.get(op, table.get("*"))
            if name is not None:
                return name
    return None


@contextmanager
def use_backend(backend: str, op: str | None = None) -> Iterator[None]:
    """Forces a backend inside a `with` block, for all ops or for one.

    Args:
        backend: `torch`, `cpp`, `triton` or `cuda`, or a list such as `mrf=cpp,*=torch`.
        op: name of the one op to force; all when None.

    Raises:
        BackendError: the name is unknown; or, at the call, when the forced backend refuses it.
    """
    text = backend if op is None else f"{op}={backend}"
    parse_backend(text, "use_backend")
    token = _override.set(text)
    try:
        yield
    finally:
        _override.reset(token)


def as_now(function: Callable[[_Given], _Result]) -> Callable[[_Given], _Result]:
    """The function under the `use_backend` that is in force now, whenever it is called."""
    text = _override.get()

    def called(given: _Given) -> _Result:
        token = _override.set(text)
        try:
            return function(given)
        finally:
            _override.reset(token)

    return called


@contextmanager
def use_exact(on: bool = True) -> Iterator[None]:
    """Inside a `with` block, computes every sum in one order, so that a whole signal equals its stream bit for bit.

    Without it the C++ implementation of `mrf` may use Toom-Cook convolution, whose rounding differs by about 1e-6.
    """
    token = _exact.set(on)
    try:
        yield
    finally:
        _exact.reset(token)


def exact() -> bool:
    """Whether `use_exact` is in force."""
    return _exact.get()


def size() -> choice.Size | None:
    """The size by which the device's table decides, None where one implementation must serve all sizes."""
    return None if _exact.get() else choice.size()


def settings() -> Hashable:
    """What decides, besides a call's own arguments, which implementation runs and how it packs."""
    return _override.get(), env.BACKEND.get(), _exact.get(), choice.size()


def wants_grad(*tensors: torch.Tensor | None) -> bool:
    """True where autograd must see the computation, so that the reference has to run."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
