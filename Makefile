# One word a task. Each does what it needs from a fresh clone, with Python 3.10 or newer and PyPI,
# as root or not, without Docker, as often as you like.   ARGS='…' is passed on.

# The first interpreter that is new enough; PYTHON=… chooses another.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done; true)
endif
VENV := .venv
RUN := $(VENV)/bin
UV := .cache/bootstrap/bin/uv
CODE := src instrumentors exporters tests benchmarks .ci hatch_build.py
# What imports Dagster or dbt is checked against their environment; .ci/frameworks.json names it too.
FRAMEWORKS := benchmarks/programs exporters/costinsights_exporters/dagster.py src/costinsights/dagster \
	src/costinsights/dbt tests/programs

# A home that cannot be written (a service account, a container) stops nothing: the caches move here.
export XDG_CACHE_HOME := $(shell d="$${XDG_CACHE_HOME:-$$HOME/.cache}"; \
	mkdir -p "$$d" 2>/dev/null && test -w "$$d" && echo "$$d" || echo "$(CURDIR)/.cache"; true)
export UV_PYTHON_DOWNLOADS := never
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
unexport VIRTUAL_ENV

.PHONY: help install demo test lint format types docs bench bench-check build lock all clean

help:           ## what there is
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s '	'

install: $(VENV)/.installed  ## the locked environment in .venv, with this tree in it

demo: install   ## the main job on data that it makes, then the report
	@$(RUN)/costinsights demo $(ARGS)

test: install   ## all tests; servers are brought up as needed (CONTRIBUTING.md)
	@$(RUN)/python -m pytest $(ARGS)

lint: install   ## ruff: rules and format
	@$(RUN)/ruff check $(ARGS) .
	@$(RUN)/ruff format --check .

format: install  ## let ruff rewrite what it can
	@$(RUN)/ruff check --fix-only .
	@$(RUN)/ruff format .

types: install  ## mypy and pyright, both strict, tests included
	@$(RUN)/mypy $(wildcard $(CODE))
	@$(RUN)/pyright
	@environment=$$($(RUN)/python -m tests.environments dagster)/bin/python && \
		$(RUN)/mypy --python-executable $$environment --cache-dir .mypy_cache/frameworks \
			$$(find $(wildcard $(FRAMEWORKS)) -name '*.py') && \
		$(RUN)/pyright --project .ci/frameworks.json --pythonpath $$environment

docs: install   ## every code block of the documentation runs
	@$(RUN)/python -m pytest tests/unit/test_docs.py $(ARGS)

bench: install  ## the overhead table, as ratios against named peers
	@$(RUN)/python -m benchmarks $(ARGS)

bench-check: install  ## the ratios that CI holds
	@$(RUN)/python -m benchmarks.gate $(ARGS)

build: install  ## wheel and sdist, in dist/
	@rm -rf dist
	@$(UV) build --quiet --no-build-isolation --python $(RUN)/python --out-dir dist

all: lint types test docs build  ## everything but the benchmarks

lock: $(UV)     ## requirements/*.txt from pyproject.toml (ARGS=--upgrade for the newest)
	@for group in "pyproject.toml --group dev" "--group mysqlclient" "--group spark" "--group spark35" "--group uv" \
		"--constraint requirements/spark.txt --group dagster" "--group dagster111" "--group prefect" "--group airflow" "pyproject.toml --group dbt"; do \
		$(UV) pip compile $$group --quiet --universal --python-version 3.10 --generate-hashes \
			--no-emit-index-url --no-annotate --custom-compile-command 'make lock' $(ARGS) \
			--output-file requirements/$${group##* }.txt || exit 1; done
	@$(UV) pip compile --group focus_validator --quiet --universal --python-version 3.12 \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
		$(ARGS) --output-file requirements/focus_validator.txt

clean:          ## forget the environment, the caches and what was built
	@rm -rf $(VENV) .cache dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# uv comes from PyPI too, by its hash.
$(UV): requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "costinsights needs Python 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .cache/bootstrap || { echo "$(PYTHON) cannot make environments (on Debian: apt install python3-venv)" >&2; exit 1; }
	@.cache/bootstrap/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# mysqlclient is built from source: where it cannot be, its tests are skipped by name.
$(VENV)/.installed: requirements/dev.txt requirements/mysqlclient.txt requirements/spark.txt pyproject.toml \
		hatch_build.py src/costinsights/_quick.c $(UV)
	@test -x $(RUN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --python $(RUN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(RUN)/python --require-hashes --no-deps --no-build-isolation \
		--requirement requirements/mysqlclient.txt 2>.cache/mysqlclient.log \
		|| echo "mysqlclient was not built (needs a C compiler, pkg-config, libmariadb-dev): .cache/mysqlclient.log"
	@$(UV) pip install --quiet --python $(RUN)/python --require-hashes --no-deps --no-build-isolation \
		--requirement requirements/spark.txt
	@$(UV) pip install --quiet --python $(RUN)/python --no-deps --no-build-isolation --editable .
	@touch $@
