#!/usr/bin/env bash
# Nodes of an ONNX graph that draw noise by different seeds above 2^24 draw the same noise: the attribute `seed` is a
# float32, and neither onnx's helper nor its checker says that a whole number was rounded. Dates as seeds (20261130) are
# in that range. Exits with 0 while that is so, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}")


def drawn(*seeds):
    nodes = [helper.make_node("RandomNormal", [], [f"y{i}"], shape=[8], seed=float(s)) for i, s in enumerate(seeds)]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [8]) for i in range(len(seeds))]
    model = helper.make_model(helper.make_graph(nodes, "g", [], outputs), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    kept = [helper.get_node_attr_value(node, "seed") for node in model.graph.node]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return kept, session.run(None, {})


small, (a, b) = drawn(7, 8)
print(f"seeds 7 and 8: kept as {small[0]:.0f} and {small[1]:.0f}, equal noise: {np.array_equal(a, b)}")
large, (c, d) = drawn(20261131, 20261132)
print(f"seeds 20261131 and 20261132: kept as {large[0]:.0f} and {large[1]:.0f}, equal noise: {np.array_equal(c, d)}")
sys.exit(0 if not np.array_equal(a, b) and np.array_equal(c, d) else 1)
PYTHON
