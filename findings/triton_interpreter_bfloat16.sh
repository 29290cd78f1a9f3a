#!/usr/bin/env bash
# Triton's interpreter turns float32 into bfloat16 by cutting 16 bits off, where compiled kernels and torch round to the
# nearest: errors of kernels that are tested in the interpreter come out twice as large, and biased towards zero.
# Exits with 0 while that is so, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install -q --no-deps triton==3.9.0
cd "$folder"
cat > cut.py <<'PYTHON'
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def narrow(x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i).to(tl.bfloat16))


x = torch.tensor([1.0, 1.0 + 2**-8 + 2**-12, 1.0 + 2**-7 - 2**-12, -(1.0 + 2**-7 - 2**-12)])
y = torch.empty(4, dtype=torch.bfloat16)
narrow[(1,)](x, y, N=4)
print(f"torch {torch.__version__}, triton {triton.__version__}")
print(f"float32:     {x.tolist()}")
print(f"torch:       {x.bfloat16().tolist()}")
print(f"interpreter: {y.tolist()}")
cut = (x.view(torch.int32) & -65536).view(torch.float32).bfloat16()
sys.exit(0 if torch.equal(y, cut) and not torch.equal(y, x.bfloat16()) else 1)
PYTHON
TRITON_INTERPRET=1 "$folder/venv/bin/python" cut.py
