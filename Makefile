# `make demo` and `make test` are all a newcomer needs; each creates .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
unexport PYTHONDONTWRITEBYTECODE  # what one process compiled, the next need not

.PHONY: demo test every check cover clean

demo: .venv/ready
	$(BIN)/mrl-search demo

test: .venv/ready
	$(PYTEST) -m "not slow"

every: .venv/ready
	$(PYTEST)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

cover: .venv/ready
	$(PYTEST) --cov --cov-report=term

.venv/ready: pyproject.toml constraints.txt $(wildcard mrl_search/engines/native/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv demo build *.egg-info
