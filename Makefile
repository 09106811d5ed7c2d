# make demo: everything from a bare machine to a measured brain mask. make test: the quick suites.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= onnxruntime
STAMP := $(VENV)/.installed

.PHONY: demo test test-emulation test-native-matrix soak native types lint bench bench-quick gpu-acceptance format

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

native: $(STAMP)
	$(BIN)/cmake --build build/native --target voxelrt
	cp build/native/libvoxelrt.so kernels/common/.libvoxelrt.new && mv kernels/common/.libvoxelrt.new kernels/common/libvoxelrt.so
