"""What the kernels between a stream's layers need of a device, compiled for it: python tests/stream_kernels.py 90"""

from __future__ import annotations

import json
import sys

import stub_driver  # before Triton comes in
import torch

from fastvoc.kernels import ahead, launch, stream_rows, stream_sum

if __name__ == "__main__":
    target = int(sys.argv[1])
    stub_driver.stand_in(target)
    with torch.inference_mode(), launch.record(dry=True) as recording:
        for dtype, channels in ((torch.bfloat16, 64), (torch.float32, 80)):
            x, y, kept = (torch.zeros(2, steps, channels, dtype=dtype) for steps in (40, 50, 12))
            stream_rows.NATIVE.op(0, 0, 52, 0, 40, x.mT, kept)
            stream_sum.NATIVE.op(x.mT, y.mT, kept, kept)
    found = [ahead.compile_ahead(ahead.specialize(each), target) for each in recording.launches]
    print(json.dumps([{"shared": each.shared, "spills": each.spills, "stack": each.stack} for each in found]))
