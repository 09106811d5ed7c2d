# make demo: everything from a bare machine to a measured brain mask. make test: the quick suites.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := $(shell find kernels -name '*.cpp' -o -name '*.h') CMakeLists.txt setup.py pyproject.toml
SANITIZED := build/sanitized
# Fresh memory is NaN, arenas and scratch included, so that what a kernel reads without having written it shows.
POISONED := detect_leaks=0:max_malloc_fill_size=1000000000:malloc_fill_byte=255

.PHONY: demo test bench-cases test-emulation test-emulation-matrix gpu-report test-gpu-aot test-gpu-matrix gpu-acceptance test-native-matrix soak native types lint format bench bench-quick test-frameworks \
	bench-compare conformance clean test-packaging

# ---- set-up: done once, again only when what it depends on has changed ----

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: $(BIN)/python $(NATIVE_SOURCES)
	$(BIN)/pip install --quiet --editable '.[onnxruntime]'
	touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[onnxruntime,dev]'
	touch $@

native: $(VENV)/.installed

# What mypy and editors see as `voxelrt`: links to the three source folders.
.PHONY: build/typing
build/typing:
	rm -rf build/typing && mkdir -p build/typing/voxelrt
	for entry in $(CURDIR)/engine/*; do ln -sfn $$entry build/typing/voxelrt/; done
	ln -sfn $(CURDIR)/kernels $(CURDIR)/models build/typing/voxelrt/

# ---- what users run ----

demo: $(VENV)/.installed
	@$(BIN)/python -m bench.demo --output demo-output

# ---- what developers run ----

test: $(VENV)/.developer
	$(BIN)/python -m pytest -n 2 --durations 8 -m 'not slow' --ignore tests/emulation --ignore tests/gpu_aot \
		--ignore tests/native/test_aarch64.py tests

conformance: $(VENV)/.developer
	$(BIN)/python -m tests.conformance

# The kernels and the runtime under ASan and UBSan, once for each instruction set this processor has.
$(SANITIZED)/libvoxelrt.so: $(VENV)/.developer $(NATIVE_SOURCES)
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
		-DVOXELRT_SANITIZE=address,undefined > /dev/null
	$(BIN)/cmake --build $(SANITIZED) --target voxelrt

test-native-matrix: $(SANITIZED)/libvoxelrt.so
	for isa in $$($(BIN)/python -m tests.native.isas); do \
		echo "== ASan and UBSan, $$isa"; \
		VOXELRT_CPU_ISA=$$isa VOXELRT_LIBRARY=$(SANITIZED)/libvoxelrt.so LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" \
		ASAN_OPTIONS=$(POISONED) UBSAN_OPTIONS=print_stacktrace=1 \
		$(BIN)/python -m pytest -n 2 -q -p no:cacheprovider tests/kernels tests/unit/test_plan_file.py \
			tests/pipeline/test_compile.py tests/models/test_unet3d.py || exit 1; \
	done
	$(BIN)/python -m pytest -q tests/native

# GPU kernels without a GPU: compiled for every target, and run by the shim, Triton's interpreter and the PTX interpreter.
# Triton (290 MB to download) is installed for this alone.
EMULATION_OPTIONS ?= -n 2 --durations 8
$(VENV)/.emulation: $(VENV)/.developer
	$(BIN)/pip install --quiet 'triton>=3.9,<3.10'
	touch $@

test-emulation: export TRITON_CACHE_DIR := $(CURDIR)/build/triton
test-emulation: $(VENV)/.emulation
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(EMULATION_OPTIONS) -m 'not slow' tests/emulation/test_triton_interpreter.py
	$(BIN)/python -m pytest $(EMULATION_OPTIONS) -m 'not slow' --ignore tests/emulation/test_triton_interpreter.py tests/emulation

# Every case of every Triton kernel for every target whose PTX is interpreted, and every target compiled.
test-emulation-matrix: export TRITON_CACHE_DIR := $(CURDIR)/build/triton
test-emulation-matrix: $(VENV)/.emulation
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(EMULATION_OPTIONS) -m slow tests/emulation/test_triton_interpreter.py
	$(BIN)/python -m pytest $(EMULATION_OPTIONS) -m slow --ignore tests/emulation/test_triton_interpreter.py tests/emulation

# Registers, spills and shared memory of the GPU kernels, from ptxas, and predicted floors.
gpu-report: export TRITON_CACHE_DIR := $(CURDIR)/build/triton
gpu-report: $(VENV)/.emulation
	$(BIN)/python -m tests.emulation.report > docs/gpu-report.md

# Engines for GPUs that are not here. TensorRT-RTX (230 MB to download), CuPy (70 MB) and the bindings of TensorRT, whose
# signatures are read, are installed for this alone.
$(VENV)/.gpu-aot: $(VENV)/.developer
	$(BIN)/pip install --quiet 'tensorrt-rtx-cu13>=1.7,<1.8' 'cupy-cuda13x>=14,<15'
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/tensorrt-bindings/10 'tensorrt-cu13-bindings==10.16.1.11'
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/tensorrt-bindings/11 'tensorrt-cu13-bindings==11.4.0.106'
	touch $@

test-gpu-aot: $(VENV)/.gpu-aot
	$(BIN)/python -m pytest -n 2 --durations 4 -m 'not slow' tests/gpu_aot

# Every network for every GPU and precision: some minutes.
test-gpu-matrix: $(VENV)/.gpu-aot
	$(BIN)/python -m pytest -n 2 --durations 8 -m slow tests/gpu_aot

# What only silicon can show: all tests of tests/gpu, a short form of bench/gpu, and a page about both. Without a GPU
# every test is skipped by name, and the page and the status (Error 77) say that nothing was measured.
# GPU_PYTHON names a Python that has voxelrt[gpu], pytest and hypothesis already; then nothing is installed.
GPU_PYTHON ?=
GPU_LOG := bench-output/gpu-tests.log
GPU_READY := $(if $(GPU_PYTHON),,$(if $(shell command -v nvidia-smi),$(VENV)/.gpu,$(VENV)/.developer))
$(VENV)/.gpu: $(VENV)/.developer
	$(BIN)/pip install --quiet --editable '.[onnxruntime,dev,gpu]' 'cuda-toolkit[nvcc,cudart,cccl]==13.0.*'
	touch $@

gpu-acceptance: $(GPU_READY)
	@mkdir -p bench-output
	@python=$(or $(GPU_PYTHON),$(BIN)/python); \
	$$python -m pytest -ra --durations 10 -m gpu tests/gpu > $(GPU_LOG) 2>&1; tests=$$?; tail -n 60 $(GPU_LOG); \
	$$python -m bench.gpu --quick --tests $(GPU_LOG); measured=$$?; \
	if [ $$tests -ne 0 ]; then exit $$tests; fi; exit $$measured

# The sdist, the wheel made from it, and a clean venv that uses it.
test-packaging: $(VENV)/.developer
	$(BIN)/python -m tests.packaging.check

# Ten minutes for each reader; SOAK_OPTIONS="--seconds 20" goes through everything quickly.
SOAK_OPTIONS ?=
soak: $(VENV)/.developer
	$(BIN)/python -m tests.soak.run $(SOAK_OPTIONS)

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.cpp' '*.h' '*.c' '*.cu' '*.cuh')

format: $(VENV)/.developer
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.c' '*.cu' '*.cuh')

types: $(VENV)/.developer build/typing
	MYPYPATH=build/typing $(BIN)/mypy

# The full run has an environment of its own, with every peer of bench/peers.toml; the quick one needs ONNX Runtime only.
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_OPTIONS ?=

$(BENCH_VENV)/.installed: bench/peers.toml $(NATIVE_SOURCES)
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/pip install --quiet --upgrade pip
	$(BENCH_BIN)/pip install --quiet --editable . $$($(PYTHON) -m bench requirements)
	touch $@

# Three quarters of an hour on two cores. Its parts are commands of their own (bench/README.md); one that fails does not take
# the others with it.
bench: $(BENCH_VENV)/.installed
	@status=0; measure() { $(BENCH_BIN)/python -m "$$@" || status=1; }; \
	measure bench run $(BENCH_OPTIONS); \
	measure bench run --isa avx2 --rows models/unet3d --peers onnxruntime,openvino,torch; \
	measure bench.warps; \
	measure bench.filters speed; \
	measure bench.filters quality; \
	measure bench running; \
	measure bench accuracy; \
	exit $$status

# Whole cases against nnU-Net's own predictor, which is installed for this alone.
$(BENCH_VENV)/.cases: $(BENCH_VENV)/.installed
	$(BENCH_BIN)/pip install --quiet torch==2.13.0 nnunetv2==2.8.1
	touch $@

bench-cases: $(BENCH_VENV)/.cases
	@$(BENCH_BIN)/python -m bench cases $(BENCH_OPTIONS)

# Readers whose formats need their framework, against the framework itself.
test-frameworks: $(BENCH_VENV)/.cases
	$(BENCH_BIN)/pip install --quiet pytest hypothesis 'onnxscript>=0.5'
	$(BENCH_BIN)/python -m pytest -q -rs -m 'slow or not slow' tests/models/test_torch.py tests/models/test_nnunet_networks.py
	$(BENCH_BIN)/python -m tests.packaging.formats $(BENCH_BIN)

bench-quick: $(VENV)/.developer
	@$(BIN)/python -m bench run --quick $(BENCH_OPTIONS)

# This working tree against another commit: make bench-compare BASE=main
bench-compare: $(VENV)/.developer
	@$(BIN)/python -m bench compare $(or $(BASE),$(error make bench-compare BASE=<commit>)) $(BENCH_OPTIONS)

clean:
	rm -rf build $(VENV) demo-output bench-output
