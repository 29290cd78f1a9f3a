#!/usr/bin/env bash
# A normal initialisation of a tensor on the meta device, which has no memory, imports torch's compiler; a uniform one
# does not. So does building any module that draws normal numbers under `torch.device("meta")`, as loaders do that take
# their tensors from a file. Exits with 0 while that is so, with 1 when it has changed.
# The cause: on meta, Tensor.normal_ goes by a decomposition written in Python, whose wrapper imports torch._dynamo.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch


def imported():
    return "torch._dynamo" in sys.modules


print(f"torch {torch.__version__}, compiler imported with it: {imported()}")
before = imported()
tensor = torch.empty(4, 4, device="meta")
torch.nn.init.uniform_(tensor)
uniform, count, start = imported(), len(sys.modules), time.perf_counter()
torch.nn.init.normal_(tensor)
spent, normal, more = time.perf_counter() - start, imported(), len(sys.modules) - count
print(f"after uniform_ on meta: {uniform}")
print(f"after normal_ on meta: {normal}, {more} modules more, {spent:.2f} s")
start = time.perf_counter()
torch.nn.init.normal_(tensor)
print(f"a second normal_: {1e3 * (time.perf_counter() - start):.2f} ms")
sys.exit(0 if not before and not uniform and normal and more > 500 else 1)
PYTHON
