# Three commands matter: `make watch` shows a trained agent, `make train` trains one, `make test` runs the whole suite.
# Each sets up what it needs.

VENV ?= .venv
ARGS ?= quick
PYTEST_ARGS ?= -n 2 --dist loadfile

# ProcGen has wheels for CPython 3.10 to 3.12 on x86-64 Linux, and for CPython 3.10 on x86-64 macOS.
USABLE = import ensurepip, platform, sys; v = sys.version_info[:2]; \
	sys.exit(not (platform.machine() == "x86_64" and (v == (3, 10) if sys.platform == "darwin" else (3, 10) <= v <= (3, 12))))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
	if $$python -c '$(USABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

RUN = $(VENV)/bin/python

AGENT ?= starpilot-srwm

.PHONY: help setup train watch test check bench format clean

help:
	@echo "make train   set up (2 minutes) and train SRWM on six games (some minutes); other runs: make train ARGS='--help'"
	@echo "make watch   set up and watch a trained agent play, in the browser; another one: make watch AGENT=runs/NAME"
	@echo "make test    set up and run the whole test suite"
	@echo "make check   set up and run ruff, the formatting check and mypy"
	@echo "make bench   set up and run a short version of every benchmark; prints one table of ratios"
	@echo "make setup   set up, and nothing else"
	@echo "make format  sort imports, format, and apply ruff's safe fixes"
	@echo "make clean   remove the environment and all caches (never runs/)"

setup: $(VENV)/.installed

train: $(VENV)/.installed
	$(RUN) train.py $(ARGS)

watch: $(VENV)/.installed
	$(RUN) eval.py watch $(AGENT)

test: $(VENV)/.installed-test
	$(RUN) -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.installed-test
	$(RUN) -m benchmarks $(BENCH_ARGS)

format: $(VENV)/.installed-test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.created:
	@test -n "$(PYTHON)" || { \
		echo "error: needs Python 3.10, 3.11 or 3.12 for x86-64 with venv (on macOS: 3.10), ProcGen has no other wheels;" \
			"install one, or name it: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# A stamp is written last, so that an interrupted installation is taken up again.
$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml constraints.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]' --constraint constraints.txt
	touch $@ $(VENV)/.installed
