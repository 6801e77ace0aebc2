# make run and make test need Python 3.11+ and nothing else: what they use is installed below, once, pinned by hash.
#   make PYTHON=python3.12 test     another interpreter, in an environment of its own
#   make test ARGS="-k range -x"    ARGS goes to the program
#   make faults EFFORT=5            five times as many faults as `make test` injects; 20 without
#   make bench ARGS=--help          what can be measured beside which servers
PYTHON ?= python3
ARGS ?=
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))

# An environment belongs to one interpreter: when that is upgraded, the stamp's name changes and all is made anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3] if sys.version_info >= (3, 11) else "")' 2>/dev/null)
BASE := $(VENV)/.base-$(VERSION)
RUN := $(VENV)/.run-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
LOCK := $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: run test faults bench check lock clean

run: $(RUN)
	@exec $(VENV)/bin/python -m spool serve $(ARGS)

test: $(DEV)
	$(VENV)/bin/python -m pytest $(ARGS)

# The long version of the tests that inject faults.
faults: $(DEV)
	SPOOL_TEST_EFFORT=$(or $(EFFORT),20) timeout 2h $(VENV)/bin/python -m pytest -s tests/crash tests/hostile tests/test_model.py tests/store/test_races.py tests/client/test_resume.py $(ARGS)

# An hour and a half for all of it. What it compares with is installed in bench/.peers.
bench: $(RUN)
	timeout 4h $(VENV)/bin/python -m bench $(ARGS)

check: $(DEV)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# Everything to its newest; requirements-build.txt pins what builds the wheel.
lock: $(BASE)
	$(PIP) install --upgrade 'uv>=0.13'
	$(LOCK) -o requirements.txt pyproject.toml
	$(LOCK) -o requirements-dev.txt -c requirements.txt --all-extras pyproject.toml
	$(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(LOCK) -o requirements-build.txt -c requirements-dev.txt -

clean:
	rm -rf bench/.build bench/.peers bench/.work .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

$(BASE):
	$(if $(VERSION),,$(error Spool needs Python 3.11 or newer, and $(PYTHON) is older or missing: try make PYTHON=python3.13))
	$(PYTHON) -m venv --clear $(VENV)
	@echo '*' > $(VENV)/.gitignore
	@touch $@

$(RUN): $(BASE) requirements.txt requirements-build.txt pyproject.toml
	$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUN) requirements-dev.txt
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@
