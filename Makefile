# `make demo` and `make test` do all the set-up; both stop at the first failure.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_IMAGE := edgeseg/assets/images/china.jpg

# TensorRT-RTX and OpenVINO have wheels for x86-64 Linux; elsewhere ONNX Runtime is the backend.
ifeq ($(shell uname -sm),Linux x86_64)
EXTRAS := dev,openvino,tensorrt-rtx,cuda
else
EXTRAS := dev
endif

.PHONY: demo install test lint clean

demo: install
	$(BIN)/edgeseg build --model segformer-b0 --int8 -o demo/segformer-b0-int8 --force
	$(BIN)/edgeseg run demo/segformer-b0-int8 $(DEMO_IMAGE) -o demo
	@echo "The picture: $(CURDIR)/demo/china-overlay.jpg"

test: install lint
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

# torch first and by itself: an open range may bring several GB of CUDA.
$(STAMP): pyproject.toml CMakeLists.txt $(shell find kernels cmake -type f)
	@echo "Installing into $(VENV): a few minutes, most of them downloads"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "torch==2.13.*" numpy
	$(BIN)/python -m pip install --quiet "scikit-build-core>=1.0" cmake ninja
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[$(EXTRAS)]" \
		-C cmake.define.EDGESEG_EMULATION=ON -C cmake.define.EDGESEG_WARNINGS_AS_ERRORS=ON
	touch $(STAMP)

clean:
	rm -rf $(VENV) build demo
