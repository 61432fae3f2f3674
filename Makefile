PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: env demo check test test-slow floors cover peers cards clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: env          ## a robust-accuracy curve of a video classifier, on real MP4 files made on the spot
	$(BIN)/robustvid demo

check: env         ## what CI checks before it tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: env          ## the suite without the slow tests
	$(BIN)/python -m pytest -q -m 'not slow' -n auto --dist loadfile

test-slow: env     ## the slow tests alone
	$(BIN)/python -m pytest -q -m slow

floors:            ## the suite with the oldest versions that pyproject.toml allows, in .floors
	$(PYTHON) -m venv .floors
	.floors/bin/python -m pip install --quiet --disable-pip-version-check uv
	.floors/bin/uv pip install --quiet --python .floors/bin/python --resolution lowest-direct --only-binary :all: \
		--no-binary robustvid --editable . 'pytest>=8' 'pytest-xdist>=3' 'hypothesis>=6.100'
	.floors/bin/python -m pytest -q -m 'not slow' -n auto --dist loadfile

cover: env
	$(BIN)/python -m pytest -q -m 'not slow' --cov=robustvid --cov-report=term-missing:skip-covered

peers: env        ## the libraries that benchmarks/ measures beside robustvid
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,peers]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-deps adv-lib

cards: env        ## attacks/README.md, from the cards
	$(BIN)/python -m robustvid.reporting.attack_table

clean:
	rm -rf $(VENV) .floors build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
