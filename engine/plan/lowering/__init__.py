"""From ONNX nodes to schedule steps, one file per family of operators."""
