"""Models as ONNX files: another reading of a network, in which every layer writes its nodes."""
