"""What a layer needs to run its op: the implementation and the packed weights, kept until a weight changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastvoc.errors import BackendError
from fastvoc.nn.weights import Weights
from fastvoc.ops.stream import OpStream
from fastvoc.runtime.autocast import without_autocast
from fastvoc.runtime.choice import Layer, Row, Size
from fastvoc.runtime.forks import survive_forks
from fastvoc.runtime.registry import Cost, Impl, Op, Spec, Verdict, exact, requested, size, use_exact, wants_grad

EITHER = (torch.float32, torch.bfloat16)
_Method = TypeVar("_Method", bound=Callable[..., Any])
_Key = tuple[torch.device, torch.dtype, str | None, bool, Size | None]


def _constant(method: _Method) -> _Method:
    """Marks what torch.compile runs once, as `torch.compiler.assume_constant_result` does by importing the compiler."""
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return method


@dataclass(frozen=True)
class _Entry:
    impl: Impl
    params: Any
    packed: Any


class Prepared:
    """Runs one op with a layer's weights, by the reference where autograd must see it.

    `params` and `tensors` are methods of the layer: a copied layer then asks its own, which a lambda would not.

    Remembers, per device, dtype, forced backend, `use_exact` and size of the call, which implementation runs and what
    it packed, and packs again when a weight changes; a change through `.data` that `Weights` does not see needs a call
    of `prepare`. One tuple is replaced as a whole, so that threads may share a layer without a lock. Copies and pickles
    leave it out.
    """

    def __init__(self, op: Op, params: Callable[[], Any], tensors: Callable[[], Sequence[Tensor]]) -> None:
        self._op = op
        self._params = params
        self.tensors = tensors
        self._kept: tuple[Weights | None, dict[Any, _Entry]] = (None, {})
        self.packings = 0  # times that `prepare` was called
        self._watch: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (None, {}), "_watch": None}

    def __call__(self, x: Tensor, *args: Tensor | int | None, backend: str | None = None) -> Tensor:
        """The op on `x`; `args` are its further arguments, as its reference takes them."""
        if torch.compiler.is_compiling():
            return self._traced(x, *args, backend=backend)
        tensors = self.tensors()
        if torch.is_grad_enabled() and wants_grad(x, *tensors, *(a for a in args if isinstance(a, Tensor))):
            return self._watched(x, *args)
        entry = self._entry(tensors, x.device, x.dtype, backend)
        self._op.check(x, entry.params, *args)
        return entry.impl.run(x, entry.packed, *args)

    def _traced(self, x: Tensor, *args: Tensor | int | None, backend: str | None) -> Tensor:
        """The op where torch.compile or torch.export traces: on the weights as they were packed before the graph."""
        if torch.is_grad_enabled() and wants_grad(x, *self.tensors(), *(a for a in args if isinstance(a, Tensor))):
            if torch.compiler.is_dynamo_compiling():
                raise BackendError(f"{self._op.name}: torch.compile takes no gradients; call inside torch.no_grad()")
            return self._watched(x, *args)
        key = self._key_outside(x.device, x.dtype, backend)
        if key is None or key not in self._kept[1]:
            raise BackendError(f"{self._op.name}: its weights are not packed as they are now; call prepare() first")
        entry = self._kept[1][key]
        if entry.impl.name == "torch" and torch.compiler.is_dynamo_compiling():
            raise BackendError(f"{self._op.name}: torch.compile takes native kernels only, not backend='torch'")
        self._op.check(x, entry.params, *args)
        return entry.impl.run(x, entry.packed, *args)

    @_constant
    def _key_outside(self, device: torch.device, dtype: torch.dtype, backend: str | None) -> _Key | None:
        """What `_entry` keeps the weights under, None where they have changed.

        torch.compile runs this outside of the trace, where it packs; in torch.export the weights are fake.
        """
        kept = self._kept[0]
        dtype = dtype if dtype.is_floating_point else self.dtype()  # as `prepare` has it, also for codes
        if not torch.compiler.is_exporting():
            self._entry(self.tensors(), device, dtype, backend)
        elif kept is not None and not kept.hold():
            return None
        return self._key(device, dtype, backend)

    @without_autocast
    def _watched(self, x: Tensor, *args: Tensor | int | None) -> Tensor:
        """The op by its reference, for autograd."""
        params = self._params()
        self._op.check(x, params, *args)
        return self._op.reference(x, params, *args)

    def prepare(self, device: torch.device, dtype: torch.dtype, backend: str | None = None) -> None:
        """Packs the weights anew. Raises BackendError when a forced implementation refuses."""
        self._kept = (None, {})
        self.packings += 1
        self._entry(self.tensors(), device, dtype, backend)

    def repack(self, backend: str | None = None) -> None:
        """`prepare` where the weights are, in their dtype."""
        weight = self.weight()
        self.prepare(weight.device, weight.dtype, backend)

    def stream(self, backend: str | None = None, *, exact: bool = True) -> OpStream:
        """A new state of this layer for a signal in chunks .

        exact: as under `use_exact`, bit for bit; otherwise with the weights that a call takes by default.
        Raises BackendError when the implementation that would run has no such form.
        """
        tensors = self.tensors()
        with use_exact(exact):
            entry = self._entry(tensors, tensors[0].device, tensors[0].dtype, backend)
        if entry.impl.stream is None:
            raise BackendError(f"{self._op.name}: implementation {entry.impl.name} has no streaming form")
        stream: OpStream = entry.impl.stream(entry.params, entry.packed)
        return stream

    def bound(
        self, dtype: torch.dtype, backend: str | None = None, *, checked: bool = False
    ) -> tuple[Callable[..., Tensor], bool]:
        """What runs the op on (x, its further arguments) with the weights as they are now, x of `dtype`.

        And whether x may be float32 or bfloat16 whatever `dtype` is. checked: the op's check is asked every time.
        """
        if torch.compiler.is_compiling():
            return partial(self, backend=backend), False
        run, either = self._bound(dtype, backend, checked)
        return (run, either) if self._watch is None else (self._watch(run), either)

    def watch(self, wrap: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None) -> None:
        """Has what networks run from now on be what `wrap` makes of it, for measurements; None ends that."""
        self._watch = wrap
        self.packings += 1  # so that networks bind it anew

    def _bound(self, dtype: torch.dtype, backend: str | None, checked: bool) -> tuple[Callable[..., Tensor], bool]:
        tensors = self.tensors()
        entry = self._entry(tensors, tensors[0].device, dtype, backend)
        run, packed, params, check = entry.impl.run, entry.packed, entry.params, self._op.check
        if checked or getattr(params, "pad_mode", None) == "reflect":

            def asked(x: Tensor, *args: Tensor | int | None) -> Tensor:
                check(x, params, *args)
                return run(x, packed, *args)

            return asked, False
        if entry.impl.bind is not None and entry.impl.either and dtype in EITHER:
            return entry.impl.bind(packed), True
        return lambda x, *args: run(x, packed, *args), False  # which takes lengths to the device

    def cost(self, x: Tensor, *args: Tensor | int | None) -> Cost:
        """What a call with these arguments takes; x and other tensors may be on device meta."""
        return self._op.cost(x, self._params(), *args)

    def params(self) -> object:
        """The op's parameters, from the weights as they are now."""
        made: object = self._params()
        return made

    def held(self) -> object:
        """The weights, packed and not, as they are now: what a recorded call goes on reading."""
        return self.tensors(), self._kept

    def explain(self, backend: str | None = None) -> tuple[str, list[Verdict]]:
        """The op's name and what each implementation says of this layer, best first."""
        weight = self.weight()
        return self._op.name, self._op.verdicts(Spec.on(weight.device, weight.dtype, self._params()), backend)

    def chosen(self, backend: str | None = None, *, exact: bool = False) -> str | None:
        """The implementation that runs this layer, None when the forced one refuses."""
        weight = self.weight()
        with use_exact(exact), suppress(BackendError):
            return self._op.select(Spec.on(weight.device, weight.dtype, self._params()), backend).name
        return None

    def layer(self, dtype: torch.dtype) -> Layer:
        """What tables of times know it by, with a first input of `dtype`."""
        return self._op.layer(dtype, self._params())

    def by_size(self, backend: str | None = None) -> list[tuple[Row, str]]:
        """As `Op.by_size`, of this layer where it is."""
        weight = self.weight()
        return self._op.by_size(Spec.on(weight.device, weight.dtype, self._params()), backend)

    @property
    def int8(self) -> bool:
        """Whether it computes in int8."""
        return bool(getattr(self._params(), "int8", False))

    @property
    def form(self) -> str:
        """How it computes where that is not the usual way: "int8", or what its parameters say."""
        return getattr(self._params(), "form", "int8" if self.int8 else "")

    def weight(self) -> Tensor:
        """The first tensor that the op takes from the layer: on its device, in the dtype that it computes in.

        The layer's own first one where the op takes its tensors with the call.
        """
        taken: Sequence[Tensor] = self._params().tensors() or self.tensors()
        return taken[0]

    @_constant
    def dtype(self) -> torch.dtype:
        """That of the layer's own first tensor."""
        return self.tensors()[0].dtype

    def _entry(
        self, tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype, backend: str | None
    ) -> _Entry:
        key = self._key(device, dtype, backend)
        kept, entries = self._kept
        now = kept if kept is not None and kept.are(tensors) else Weights(tensors)
        if kept is now and key in entries:
            return entries[key]
        return self._pack(now, key)

    def _key(self, device: torch.device, dtype: torch.dtype, backend: str | None) -> _Key:
        return device, dtype, backend or requested(self._op.name), exact(), size()

    @without_autocast
    def _pack(self, now: Weights, key: _Key) -> _Entry:
        (device, dtype, *_), (kept, entries) = key, self._kept
        survive_forks()
        params = self._params()
        impl = self._op.select(Spec.on(device, dtype, params), key[2])
        before = entries if kept is now else {}
        alike = (
            entry
            for (*where, _, same, _), entry in before.items()
            if (*where,) == (device, dtype) and entry.impl is impl and (same == key[3] or impl.same(params))
        )
        entry = next(alike, None)
        if entry is None:
            with torch.no_grad():
                entry = _Entry(impl, params, impl.packed(params, key[3]))
        self._kept = (now, {**before, key: entry})
        return entry
