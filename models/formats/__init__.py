"""One file per source format; each becomes an ONNX graph."""
