# make demo: the main job on an embedded default.  make test: lint, types, tests.  make docs: the guide, in site/.
# make tests-avx2: the golden tests as a processor without AVX-512 computes them; CI runs them after make test.
# make gpu: checks and times on a GPU, in results/gpu.
# Each sets up .venv by itself; for another Python: make test PYTHON=python3.12 VENV=.venv312
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch torchvision
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

# The vector instructions of a processor without AVX-512: what equals published figures here must equal them there.
AVX2   := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2
GOLDEN := $(shell grep -rlw golden tests --include='test_*.py')

.PHONY: demo test tests-avx2 test-oldest lint types tests mutations docs gpu clean

demo: $(READY)
	$(BIN)/llie data demo datasets/demo
	$(BIN)/python llie/train.py -opt options/train/demo.yml --auto_resume
	$(BIN)/python llie/test.py -opt options/test/demo.yml
	$(BIN)/llie compare before=datasets/demo/val/low enhanced=results/demo/images/demo \
		reference=datasets/demo/val/high -o results/demo/comparison.png

test: lint types tests

tests: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

tests-avx2: $(READY)
	$(AVX2) $(BIN)/python -m pytest -n 2 --dist worksteal -m golden $(GOLDEN)

# Make small mistakes on purpose, one at a time: the golden tests must fail.
mutations: $(READY)
	$(BIN)/python -m tests.golden.mutations

# The tests alone, with the oldest torch that is supported (on Python 3.10 to 3.12).
test-oldest:
	$(MAKE) tests VENV=.venv-oldest TORCH='torch==2.4.* torchvision==0.19.*'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py -o results/gpu

# Torch first: basicsr's own build then takes the same version, from pip's cache. Without warnings: setuptools has one for
# every editable installation.
$(READY): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip list --quiet --format=freeze | sed -nE 's/^(torch(vision)?==[^+]*).*/\1/p' > $(VENV)/torch.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --build-constraint $(VENV)/torch.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
