# `make study` and `make test` need Python >= 3.11 and nothing else: each sets up .venv by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: study test long check bench docs setup clean
.DELETE_ON_ERROR:

study: setup ## the main job: raw text -> corpus -> vocabulary -> pretraining -> analysis -> charts -> report
	@$(BIN)/xuebu study

test: setup ## what CI runs
	@$(BIN)/python -m pytest

long: setup ## the tests that take minutes, and fresh examples for those of properties
	@XUEBU_EXAMPLES=fresh $(BIN)/python -m pytest -m long
	@XUEBU_EXAMPLES=fresh $(BIN)/python -m pytest tests/property

check: setup ## style, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_floors.py

bench: setup ## every benchmark, shortened; each prints a table, then one line of JSON
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

docs: setup ## the documentation as a site; a warning is an error
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # --quiet would hide warnings from --strict
	@echo "build/site/index.html opens from the disk; its search needs a server: python3 -m http.server -d build/site"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "xuebu needs Python >= 3.11, and $(PYTHON) is " + sys.version.split()[0] + ": name another with make PYTHON=python3.12")'
	@echo "setting up $(VENV): once, some minutes (torch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

clean: ## remove .venv and caches; runs/ is kept
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
