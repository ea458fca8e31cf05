# `make demo`, `make deploy-demo` and `make test` set up what they need; a second call reuses it.

PYTHON ?= python3
DATA ?= data/synthetic
BIN := .venv/bin
# Workers beside each other, each of which computes on one core; one more than there are cores,
# because tests of real processes wait for them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(shell expr $$(nproc) + 1)

.PHONY: demo deploy-demo test test-deep browser flower-defaults bench soak lock clean

# On real data a study goes on if it was stopped; STUDY names another one.
ifeq ($(DATA),data/synthetic)
BUILT_IN := data/synthetic
SITES := data/sites
RUN := runs/demo
else
RUN := runs/study
STUDY ?= docs/study/ham10000-svm.toml
endif

demo: .venv/ready $(BUILT_IN) $(SITES)
	$(if $(BUILT_IN),rm -rf $(RUN))
	$(BIN)/fedderm compare $(DATA) --out $(RUN) $(if $(STUDY),--study $(STUDY))

# A coordinator and four hospitals as processes of this machine, with TLS and keys; HOSTS=1: each on
# a host of its own, where things go wrong (root).
deploy-demo: .venv/ready $(BUILT_IN) $(SITES)
	rm -rf runs/deploy-demo
	$(BIN)/fedderm deploy demo $(DATA) --out runs/deploy-demo $(if $(HOSTS),--hosts)

test: .venv/ready
	@command -v npm >/dev/null && $(MAKE) --no-print-directory browser || \
	    echo "npm is missing or cannot install; pages that hold a model are not tested"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

# All properties on 40 times as many examples, attacks and damage by the thousand, for hours.
test-deep: .venv/ready
	$(PYTEST) --hypothesis-profile deep -m hypothesis

# ONNX Runtime for pages that hold a model: .venv/browser/node_modules/onnxruntime-web/dist.
browser: .venv/browser/ready

.venv/browser/ready: client/predict/package.json client/predict/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# Flower refuses settings that it does not know from pyproject.toml.
flower-defaults: .venv/ready
	$(BIN)/python -m simulations.cli.settings

bench: .venv/ready $(BUILT_IN)
	$(BIN)/fedderm bench $(DATA)

# The same hosts for hours, under faults that a seed draws (root).
MINUTES ?= 120
soak: .venv/ready $(BUILT_IN)
	rm -rf runs/soak
	$(BIN)/fedderm soak $(DATA) --out runs/soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf .venv data/synthetic data/sites runs

# pip, not another installer: where torch has a CPU build of its own, only pip finds it. The
# variable, unlike --constraint, holds for what the build needs too.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/python -m simulations.runtimes.flower_home
	touch $@

# The newest versions that pyproject.toml allows, without the labels of builds (torch's "+cpu").
lock:
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip freeze --all --exclude pip --exclude-editable | sed 's/+.*//' > constraints.txt
	touch .venv/ready

# Renamed when complete: a folder cut short by an interrupt would be taken for the data.
data/synthetic: | .venv/ready
	rm -rf $@.part
	$(BIN)/fedderm data synth $@.part
	mv $@.part $@

# What `flwr run .` trains on.
data/sites: data/synthetic
	rm -rf $@
	$(BIN)/fedderm data partition data/synthetic --out $@ --link
