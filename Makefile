# Everything a machine with Python 3.11, make, git and a C compiler needs is installed into .venv by the first target.
# The distribution's Python where it can make an environment: it was built with profile-guided optimisation, which pyenv's default
# was not, and that is a quarter of the speed of everything here. `make PYTHON=...` takes another.
PYTHON ?= $(or $(shell /usr/bin/python3.11 -c 'import ensurepip, venv; print("/usr/bin/python3.11")' 2>/dev/null),python3.11)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# One more than there are cores, since tests often wait for a process or the disk; at most eight, each with a PostgreSQL of its own.
# A file's tests stay together, because they share what takes long to build. The longest files begin first (tests/conftest.py), so that
# no worker is left with one of them at the end. `make test WORKERS=0` runs them one by one.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 8 ? cores + 1 : 8)))
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test check fast format bench lock clean

demo: $(STAMP)
	$(BIN)/cardswitch sim city

test: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow and not server"

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python -m loadtests.run

lock: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --extra dev --extra load pyproject.toml --output-file requirements.lock

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(STAMP)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
