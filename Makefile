# `make demo` and `make test` set themselves up in one virtual environment, .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: help setup demo test lint docs clean
help:
	@echo "make demo   set up, tune LoRA on LCQMC's sample data, write the leaderboard's page"
	@echo "make test   set up, lint, run all tests"
	@echo "make docs   the documentation as a site, in build/site"
	@echo "make setup  only the virtual environment; make lint, make clean"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt no-deps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or later is needed; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -r no-deps.txt
	@touch $@

demo: setup
	$(RUN) tune.py --task lcqmc --delta lora
	$(RUN) tune.py leaderboard results
	$(RUN) tune.py leaderboard results --out results/leaderboard.html
	@echo
	@echo "The page:  file://$(CURDIR)/results/leaderboard.html"
	@echo "Next:      . $(VENV)/bin/activate, and then"
	@echo "  python tune.py generate 《秋夜》           a poem by the bundled backbone"
	@echo "  python tune.py --task wantwords --delta lora --control random-backbone"
	@echo "                                          what the backbone's knowledge adds"
	@echo "  python tune.py list tasks               what else can be tuned"

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(RUN) scripts/page_lint.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict

test: lint
	$(RUN) -m pytest -n auto --dist loadfile

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
