"""The meaning of a network: ONNX held in onnx-ir, checked and rewritten by passes."""
