"""`fastvoc info --ops`: every op with its meaning, its implementations, its call and its native schema, in Markdown."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from importlib.util import find_spec

import fastvoc.ops
from fastvoc.runtime.library import SCHEMAS
from fastvoc.runtime.registry import BACKENDS, OPS, Op

_TEXT = """# Ops

<!-- Written by `fastvoc info --ops > docs/ops.md`; a test compares them. -->

An op is one step of a network: `fastvoc/ops/<op>.py` holds its parameters, its checks and its torch reference, which is
its meaning. Every other implementation is measured against that. `torch` runs anywhere, `cpp` on the CPU, `triton` and
`cuda` on GPUs. The last column has the implementations that also take a signal in chunks.

{table}

## Calls

`params` holds the weights and the shape, `lengths` [B] the valid steps of each item, `backend` the implementation to
force; what they take and give is told by the docstring of `<op>_ref`, their meaning in torch. Tensors are [B, C, T].

```text
{calls}
```

## Native schemas

What the C++ and the CUDA library register with torch, in the namespace `_fastvoc`: what is packed for an op, then x and
what a call adds. Beside the ops there are what streams take (`*_stream`, `stream_*`), what fits a CUDA tile
(`mrf_has_tile`, `mrf_has_stage`), and the instruction set (`cpu_isa`, `limit_isa`).

```text
{schemas}
```
"""


def page() -> str:
    """The list of all ops. The same on every machine: it tells what is written, not what can run here."""
    for module in pkgutil.iter_modules(fastvoc.ops.__path__, "fastvoc.ops."):
        import_module(module.name)
    ops = [OPS[name] for name in sorted(OPS)]
    table = ["| op | meaning | implementations | in chunks |", "|---|---|---|---|", *map(_row, ops)]
    return _TEXT.format(table="\n".join(table), calls="\n".join(map(_call, ops)), schemas="\n".join(sorted(SCHEMAS)))


def _row(op: Op) -> str:
    text = import_module(f"fastvoc.ops.{op.name}").__doc__ or ""
    meaning = text.splitlines()[0].removeprefix(f"{op.name}: ").rstrip(".")
    # An op that Triton refuses whatever the call has no kernel.
    names = [name for name in BACKENDS if name in op.impls and (name != "triton" or _has_kernel(op))]
    chunks = [name for name in names if op.impls[name].stream is not None]
    return f"| `{op.name}` | {meaning} | {', '.join(names)} | {', '.join(chunks) or 'none'} |"


def _has_kernel(op: Op) -> bool:
    return find_spec(f"fastvoc.kernels.{op.name}") is not None


def _call(op: Op) -> str:
    taken = inspect.signature(op.reference).parameters.values()
    words = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in taken]
    return f"{op.name}({', '.join([*words, 'backend=None'])})"
