# make demo: the main job on an embedded default.  make test: lint, types, tests.  make docs: the guide, in site/.
# Each sets up .venv by itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: demo test lint types docs clean

demo: $(READY)
	$(BIN)/llie data demo datasets/demo
	$(BIN)/python llie/train.py -opt options/train/demo.yml --auto_resume
	$(BIN)/python llie/test.py -opt options/test/demo.yml
	$(BIN)/llie compare before=datasets/demo/val/low enhanced=results/demo/images/demo \
		reference=datasets/demo/val/high -o results/demo/comparison.png

test: lint types
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Torch first: basicsr's own build then finds the same version in pip's cache.
$(READY): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
