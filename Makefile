# `make demo`, `make deploy-demo` and `make test` set up what they need; a second call reuses it.

PYTHON ?= python3
DATA ?= data/synthetic
RUN := runs/demo
BIN := .venv/bin

.PHONY: demo deploy-demo test bench clean

# The built-in set is small, and so are its sites; its lesions need no hiding.
ifeq ($(DATA),data/synthetic)
BUILT_IN := data/synthetic
SETTINGS := min_active=1
endif

demo: .venv/ready $(BUILT_IN)
	rm -rf $(RUN)
	$(BIN)/fedderm compare $(DATA) --out $(RUN) $(SETTINGS)

# A coordinator and four hospitals as processes of this machine, with TLS and keys.
deploy-demo: .venv/ready $(BUILT_IN)
	rm -rf runs/deploy-demo
	$(BIN)/fedderm deploy demo $(DATA) --out runs/deploy-demo

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

bench: .venv/ready $(BUILT_IN)
	$(BIN)/fedderm bench $(DATA)

clean:
	rm -rf .venv data/synthetic runs

# pip, not another installer: where torch has a CPU build of its own, only pip finds it.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Renamed when complete: a folder cut short by an interrupt would be taken for the data.
data/synthetic: | .venv/ready
	rm -rf $@.part
	$(BIN)/fedderm data synth $@.part
	mv $@.part $@
