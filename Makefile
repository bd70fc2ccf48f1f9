# Everything that a fresh Debian or Ubuntu machine with python3 needs is set up by the targets themselves, in .venv.
# The first run of `make demo` or `make test` installs packages and takes a minute; the next ones start at once.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-extended apiserver lint bench soak fuzz clean

help: ## list the targets
	@echo "make demo    run three NiceGUI replicas behind the proxy; more: make demo ARGS='--kill-every 20'"
	@echo "make test    check style, types and layers, then run all tests; more: make test ARGS='-k probes'"
	@echo "make apiserver  build kube-apiserver for the tests against a real one; make test does so too, once"
	@echo "make test-extended  tests with other versions of NiceGUI and other frameworks, which take minutes"
	@echo "make lint    only the checks of style, types and layers"
	@echo "make bench   measure against other proxies and save the results"
	@echo "make soak    20 minutes of everything at once, which fail on growth or a leak; more: make soak ARGS='--rate 50'"
	@echo "make fuzz    ten minutes of coverage-guided fuzzing of the parsers; less: make fuzz ARGS='--seconds 60'"
	@echo "make clean   remove .venv and all that the tools leave behind"

demo: $(VENV)/.has-demo
	@exec $(BIN)/python -m stickyproxy demo $(ARGS)

test: lint apiserver
	@$(BIN)/python -m pytest $(ARGS)

# Before the tests and not in one of them: the first build takes minutes.
apiserver: $(VENV)/.has-dev
	@$(BIN)/python -m tests.cluster.build

test-extended: $(VENV)/.has-dev
	@$(BIN)/python -m pytest -m extended $(ARGS)

lint: $(VENV)/.has-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.has-bench
	$(BIN)/python -m benchmarks --save $(ARGS)

soak: $(VENV)/.has-dev
	$(BIN)/python -m benchmarks.soak --duration 20m --save $(ARGS)

fuzz: $(VENV)/.has-fuzz
	@$(BIN)/python -m tests.fuzz $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .nicegui
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that the packages of pyproject.toml's extras are installed; a changed pyproject.toml installs again.
$(VENV)/.has-demo: EXTRAS := demo
$(VENV)/.has-dev: EXTRAS := demo,dev
$(VENV)/.has-bench: EXTRAS := demo,dev,bench
$(VENV)/.has-fuzz: EXTRAS := dev,fuzz
$(VENV)/.has-demo $(VENV)/.has-dev $(VENV)/.has-bench $(VENV)/.has-fuzz: pyproject.toml $(VENV)/.made
	@echo "Installing stickyproxy[$(EXTRAS)] into $(VENV), which takes a minute the first time ..."
	@$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@

# An environment without its stamp was interrupted half way, so --clear begins anew.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
		echo "expected Python 3.11 or newer, found no '$(PYTHON)': sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "expected Python 3.11 or newer, found $$($(PYTHON) -V 2>&1): give another one, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else \
			echo "$(PYTHON) lacks the venv module: sudo apt-get install $$package, then try again" >&2; exit 1; fi; \
		echo "$(PYTHON) lacks the venv module; installing $$package ..."; \
		$$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install --yes --no-install-recommends $$package >/dev/null || { \
			echo "could not install $$package: install Python's venv module by hand, then try again" >&2; exit 1; }; }
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
