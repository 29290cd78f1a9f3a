"""The keyword arguments that other packages' `from_pretrained` and `save_pretrained` take: what each means here.

One table for every class. A keyword that would change the result and has no meaning here is refused by name; what the
table does not know is the class's own matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DeviceError, DtypeError
from fastvoc.hub import download as hub
from fastvoc.loading import parse_device, parse_dtype

_Module = TypeVar("_Module", bound=nn.Module)


class Meaning(Enum):
    """What a keyword decides."""

    FILES = "where the files come from, and which: a field of `hub.Options`"
    RESULT = "the type, the place or the weights of what is made, or what is written"
    NOTHING = "speed, memory or a log of the other package; the result is the same with any value"
    REFUSED = "something that is not done here: only a value that asks for nothing is taken"


_SAME_FILES = dict.fromkeys(field.name for field in fields(hub.Options))
_LOADING: dict[str, Meaning] = {
    **dict.fromkeys(_SAME_FILES, Meaning.FILES),
    "use_auth_token": Meaning.FILES,
    "dtype": Meaning.RESULT,
    "torch_dtype": Meaning.RESULT,
    "device_map": Meaning.RESULT,
    "map_location": Meaning.RESULT,
    "state_dict": Meaning.RESULT,
    "output_loading_info": Meaning.RESULT,
    "_commit_hash": Meaning.NOTHING,
    "_fast_init": Meaning.NOTHING,
    "_from_auto": Meaning.NOTHING,
    "_from_pipeline": Meaning.NOTHING,
    "adapter_name": Meaning.NOTHING,
    "allow_all_kernels": Meaning.NOTHING,
    "attn_implementation": Meaning.NOTHING,  # vocoders and codecs here have no attention
    "code_revision": Meaning.NOTHING,
    "disable_mmap": Meaning.NOTHING,
    "etag_timeout": Meaning.NOTHING,
    "experts_implementation": Meaning.NOTHING,
    "from_flax": Meaning.NOTHING,
    "from_tf": Meaning.NOTHING,
    "generation_config": Meaning.NOTHING,
    "ignore_mismatched_sizes": Meaning.NOTHING,  # weights that do not fit raise in any case
    "kernel_config": Meaning.NOTHING,
    "local_dir_use_symlinks": Meaning.NOTHING,
    "low_cpu_mem_usage": Meaning.NOTHING,
    "max_memory": Meaning.NOTHING,
    "mirror": Meaning.NOTHING,
    "offload_buffers": Meaning.NOTHING,
    "offload_folder": Meaning.NOTHING,
    "offload_state_dict": Meaning.NOTHING,
    "resume_download": Meaning.NOTHING,
    "strict": Meaning.NOTHING,
    "tqdm_class": Meaning.NOTHING,
    "trust_remote_code": Meaning.NOTHING,
    "use_kernels": Meaning.NOTHING,
    "user_agent": Meaning.NOTHING,
    "weights_only": Meaning.NOTHING,  # nothing in a file is executed
    "adapter_kwargs": Meaning.REFUSED,
    "device_mesh": Meaning.REFUSED,
    "distributed_config": Meaning.REFUSED,
    "fusion_config": Meaning.REFUSED,
    "gguf_file": Meaning.REFUSED,
    "key_mapping": Meaning.REFUSED,
    "load_in_4bit": Meaning.REFUSED,
    "load_in_8bit": Meaning.REFUSED,
    "quantization_config": Meaning.REFUSED,
    "tp_plan": Meaning.REFUSED,
    "tp_size": Meaning.REFUSED,
}
_SAVING: dict[str, Meaning] = {
    "is_main_process": Meaning.RESULT,
    "max_shard_size": Meaning.RESULT,
    "state_dict": Meaning.RESULT,
    "variant": Meaning.RESULT,
    "commit_description": Meaning.NOTHING,
    "commit_message": Meaning.NOTHING,
    "create_pr": Meaning.NOTHING,
    "model_card_kwargs": Meaning.NOTHING,
    "private": Meaning.NOTHING,
    "repo_id": Meaning.NOTHING,
    "repo_url": Meaning.NOTHING,
    "save_function": Meaning.NOTHING,
    "save_original_format": Meaning.NOTHING,
    "save_peft_format": Meaning.NOTHING,
    "token": Meaning.NOTHING,
    "use_auth_token": Meaning.NOTHING,
    "distributed_checkpoint": Meaning.REFUSED,
    "push_to_hub": Meaning.REFUSED,
    "safe_serialization": Meaning.REFUSED,
}
_ASKS_FOR_NOTHING = {"safe_serialization": (True, None)}
# Fields of configurations under the same name.
_WRITTEN = ("dtype", "torch_dtype")
_WHOLE = ("auto", "balanced", "balanced_low_0", "sequential")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|K|M|G|T)I?B", re.IGNORECASE)
_POWERS = ("", "K", "M", "G", "T")


@dataclass(frozen=True)
class Loading:
    """What the keywords of a `from_pretrained` ask for; `rest` are those that the table does not know.

    dtype: "auto" for the saved one, None for the class's own; device: None to leave the weights where they were read.
    """

    files: hub.Options
    dtype: torch.dtype | str | None
    device: torch.device | None
    state_dict: Mapping[str, Tensor] | None
    output_loading_info: bool
    rest: dict[str, Any]

    def plain(self) -> Loading:
        """The same for a class whose upstream knows no further keywords. Raises ArgumentError naming any."""
        if self.state_dict is not None or self.output_loading_info:
            raise _refusal("from_pretrained", "output_loading_info" if self.state_dict is None else "state_dict")
        for name in self.rest:
            raise ArgumentError(f"from_pretrained: unknown option {name!r}")
        return self

    def saved_dtype(self, *known: torch.dtype | None) -> torch.dtype | None:
        """The dtype asked for; for "auto" the first known one."""
        if isinstance(self.dtype, str):
            return next((dtype for dtype in known if dtype is not None), None)
        return self.dtype

    def ready(self, model: _Module, dtype: torch.dtype | None) -> _Module:
        """The model in eval mode, its weights frozen, where and as it was asked for."""
        return model.eval().requires_grad_(False).float().to(device=self.device, dtype=dtype)


@dataclass(frozen=True)
class Saving:
    """What the keywords of a `save_pretrained` ask for. `write` is False in the processes that are not the main one."""

    write: bool
    state_dict: Mapping[str, Tensor] | None
    variant: str | None
    limit: int | None  # bytes of a file

    def file(self, name: str) -> str:
        """The name of the weights file."""
        stem, dot, ending = name.rpartition(".")
        return name if self.variant is None else f"{stem}.{self.variant}{dot}{ending}"

    def check_size(self, state: Mapping[str, Tensor]) -> None:
        """Raises ArgumentError when the weights are more than one file may have."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        if self.limit is not None and size > self.limit:
            raise ArgumentError(f"max_shard_size: {self.limit} bytes, the weights have {size} and go into one file")


def loading(given: Mapping[str, Any]) -> Loading:
    """The keywords of a `from_pretrained`. Raises ArgumentError, DtypeError or DeviceError naming one."""
    known = _known("from_pretrained", _LOADING, given)
    files = {name: known[name] for name in _SAME_FILES if known.get(name) is not None}
    if known.get("use_auth_token") is not None:
        files.setdefault("token", known["use_auth_token"])
    place = known.get("device_map")
    place = known.get("map_location") if place is None else place
    dtype = known.get("dtype")
    return Loading(
        hub.Options(**files),
        parse_float(known.get("torch_dtype") if dtype is None else dtype),
        _device(place),
        known.get("state_dict"),
        bool(known.get("output_loading_info")),
        {name: value for name, value in given.items() if name not in known},
    )


def saving(given: Mapping[str, Any]) -> Saving:
    """The keywords of a `save_pretrained`; what the table does not know has no effect. Raises ArgumentError."""
    known = _known("save_pretrained", _SAVING, given)
    limit = known.get("max_shard_size")
    return Saving(
        bool(known.get("is_main_process", True)),
        known.get("state_dict"),
        known.get("variant"),
        None if limit is None else _bytes(limit),
    )


def public(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that may be written to a configuration: no keyword of loading or saving, a token least of all."""
    return {name: value for name, value in values.items() if name in _WRITTEN or name not in _LOADING | _SAVING}


def parse_float(value: torch.dtype | str | None) -> torch.dtype | str | None:
    """A floating-point dtype of itself or its name in torch or here; "auto" and None stay. Raises DtypeError."""
    if value is None or value == "auto":
        return value if value is None else "auto"
    named = getattr(torch, value.removeprefix("torch."), value) if isinstance(value, str) else value
    dtype = named if isinstance(named, torch.dtype) else parse_dtype(named)
    if dtype not in _FLOATS:
        raise DtypeError(f"dtype: expected float32, float16, bfloat16 or float64, got {value!r}")
    return dtype


def _known(method: str, table: Mapping[str, Meaning], given: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in given.items() if name in table}
    for name, value in known.items():
        if table[name] is Meaning.REFUSED:
            nothing = _ASKS_FOR_NOTHING.get(name)
            if value not in nothing if nothing is not None else value:
                raise _refusal(method, name)
    return known


def _refusal(method: str, name: str) -> ArgumentError:
    return ArgumentError(f"{method}: {name!r} cannot be honoured here; leave it out")


def _device(value: Any) -> torch.device | None:
    """The one device of a `device_map` or `map_location`."""
    if isinstance(value, Mapping):
        places = set(map(_device, value.values()))
        if len(places) != 1:
            raise DeviceError(f"device_map: expected one device for the whole model, got {dict(value)}")
        return places.pop()
    if isinstance(value, str) and value in _WHOLE:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return None if value is None else parse_device(value)


def _bytes(value: int | str) -> int:
    match = None if isinstance(value, int) else _SIZE.fullmatch(str(value).strip())
    if match is None:
        if not isinstance(value, int) or value <= 0:
            raise ArgumentError(f"max_shard_size: expected a number of bytes or a text such as 5GB, got {value!r}")
        return value
    return int(float(match[1]) * 1000 ** _POWERS.index(match[2].upper()))
