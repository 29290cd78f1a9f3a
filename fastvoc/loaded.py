"""What every object of `fastvoc.load` is: a model with its device, dtype and forced backend, and the input checks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.nn.model import Array, Model
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import is_int8
from fastvoc.runtime import choice, flags
from fastvoc.runtime.registry import use_exact
from fastvoc.runtime.stats import Stats
from fastvoc.runtime.whole import whole_numbers

_Model = TypeVar("_Model", bound="LoadedModel")
Lengths = Array | Sequence[int] | None
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32)


class LoadedModel:
    """A model, its configuration, and the implementation to force, None to choose."""

    def __init__(self, model: Model, config: Any, *, backend: str | None = None) -> None:
        self.model = model
        self.config = config
        self.backend = backend
        self.notes: tuple[str, ...] = ()  # what differs from what was asked for, and why
        self.assumed: dict[str, str] = {}  # why, by the field of the configuration that no file says
        self.stats = Stats(self.hop / self.sample_rate)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "stats"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, or out of a pickle, neither of which has the packed weights. Raises BackendError as `load`."""
        self.__dict__.update(state)
        self.stats = Stats(self.hop / self.sample_rate)
        self.model.prepare(backend=self.backend)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveform."""
        return int(self.config.sample_rate)

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return int(self.config.hop)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and the activations, but for the layers that a model keeps in float32.

        torch.int8 for an int8 model (`fastvoc convert --int8`), whose activations are bytes inside its convolutions.
        """
        if is_int8(self.model):
            return torch.int8
        dtypes: set[torch.dtype] = {p.dtype for p in self.model.parameters()}
        return min(dtypes, key=lambda dtype: dtype.itemsize)

    @property
    def input_dtype(self) -> torch.dtype:
        """What a call's input is cast to: the type of the model's first layer."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        place = self.__dict__.get("_place")
        if place is None or place[0] is not self.model:  # asked in every call, and `parameters()` walks all modules
            name = next(name for name, _ in self.model.named_parameters())
            owner, _, key = name.rpartition(".")
            parameters: dict[str, Any] = self.model.get_submodule(owner)._parameters
            place = self.__dict__["_place"] = self.model, parameters, key
        weight: Tensor = place[1][place[2]]
        return weight

    def to(self: _Model, *args: Any, **kwargs: Any) -> _Model:
        """Moves or casts the model as `torch.nn.Module.to` does, packs its weights anew, and returns itself.

        Raises DtypeError for the cast of an int8 model.
        """
        wanted = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
        if wanted and self.dtype is torch.int8:
            raise DtypeError(f"dtype: an int8 model cannot be cast to {wanted[0]}; load its file with that dtype")
        self.model.to(*args, **kwargs)
        self.notes = ()
        self.model.prepare(backend=self.backend)
        return self

    def check(self) -> None:
        """Waits for the device and raises ArgumentError for what calls met there that did not look at values.

        That is, since the last check and of all models on the device: a code outside the codebooks, which counts as
        the nearest one, and NaN or infinity in the input of a call or stream with `check="later"`.
        """
        codes, not_finite = (flags.take(self.device, kind) for kind in (flags.CODES, flags.NOT_FINITE))
        if codes:
            raise ArgumentError("codes: a call or chunk since the last check had some outside the codebooks")
        if not_finite:
            raise ArgumentError("mel: a call or chunk since the last check had NaN or infinity")

    def computing(self, items: int, samples: int, exact: bool = False) -> AbstractContextManager[None]:
        """A context around a call on items of so many samples: on a GPU its size decides what runs, unless `exact`."""
        return use_exact() if exact else choice.sized(self.device, items, samples / self.sample_rate)

    def layers(self) -> dict[str, Prepared]:
        """The model's layers by name, for `fastvoc.explain`."""
        return self.model.layers()

    def _checks(self, check: bool | None) -> bool:
        return self.device.type == "cpu" if check is None else check

    def _floats(self, value: Array, name: str) -> Tensor:
        """A floating-point tensor on the model's device; numpy arrays come from anywhere."""
        if isinstance(value, np.ndarray):
            if value.dtype.kind != "f":
                raise DtypeError(f"{name}: expected floating-point values, got a numpy array of {value.dtype}")
            return torch.from_numpy(value.astype(np.float32, order="C")).to(self.device)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise DtypeError(f"{name}: expected a floating-point torch tensor or numpy array, got {got}")
        if value.device != self.device:
            raise DeviceError(f"{name}: expected a tensor on {self.device} like the model, got {value.device}")
        return value

    def _integers(self, value: Any, name: str) -> Tensor:
        """An int64 tensor on the model's device, of whole numbers of any type; numpy arrays come from anywhere."""
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            return torch.from_numpy(value.astype(np.int64, order="C")).to(self.device)
        if not isinstance(value, Tensor) or value.dtype not in _INTEGERS:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            got = f"a numpy array of {value.dtype}" if isinstance(value, np.ndarray) else got
            raise DtypeError(f"{name}: expected a torch tensor or numpy array of whole numbers, got {got}")
        if value.device != self.device:
            raise DeviceError(f"{name}: expected a tensor on {self.device} like the model, got {value.device}")
        return value.long()


def whole_lengths(lengths: Lengths, batch: int, longest: int) -> Tensor | None:
    """`lengths` as int64 [B] on the CPU; values must be in 1..longest. None stays None."""
    if lengths is None:
        return None
    counts = whole_numbers(lengths, "lengths").cpu()
    if counts.shape != (batch,):
        raise ShapeError(f"lengths: expected [{batch}], one per item, got {list(counts.shape)}")
    low, high = int(counts.min()), int(counts.max())
    if low < 1 or high > longest:
        raise ArgumentError(f"lengths: expected values in 1..{longest}, got {low}..{high}")
    return counts
