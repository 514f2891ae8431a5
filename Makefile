# Start with `make demo` and `make test`; each creates the virtual environment first. `make help` lists all targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RESOLVE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
    --upgrade --quiet

INSTALL = install --require-hashes -r
# Test modules run in parallel processes, each with its own brokers and ports; three, because many tests wait.
# They are started in the order of collection, see tests/conftest.py.
WORKERS ?= --numprocesses 3 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test check fuzz soak bench bench-learning kubeedge-lab kubeedge-lab-stop test-kubeedge lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(READY) ## run the whole loop on this machine; PHOTOS=DIR and BACKBONE=NAME are optional
	$(BIN)/gleaner demo $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(BACKBONE),--backbone $(BACKBONE)) $(ARGS)

test: $(READY) ## run the whole test suite
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

check: $(READY) ## lint, check types and layers, compare the published contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/gleaner schema --out schemas/v1 --reference docs/reference.md --check

fuzz: $(READY) ## fuzz every parser of external bytes: MINUTES=10
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r constraints/fuzz.txt
	$(BIN)/python -m tests.fuzz $(or $(MINUTES),10)

soak: $(READY) ## inject faults into the whole system: MINUTES=20 SEED=1; VARIANT=auto-ack breaks a rule
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1) \
	    $(if $(VARIANT),--variant $(VARIANT)) $(ARGS)

bench: $(READY) ## compare with alternatives, see docs/benchmarks.md: MINUTES=25, ARGS="--quick pipeline"
	$(BIN)/python -m bench --minutes $(or $(MINUTES),25) $(ARGS)
	$(BIN)/python -m bench.render

# Its matrices are small: several OpenBLAS threads would be slower than one.
bench-learning: $(READY) ## compare learning policies on real photos, about twenty minutes: PHOTOS=DIR
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench.learning --photos $(or $(PHOTOS),$(GLEANER_PHOTOS),../shared/photos) $(ARGS)

kubeedge-lab: $(READY) ## build KubeEdge and start it here with two edge nodes; needs Go
	$(BIN)/python -m tests.kubeedge start $(ARGS)

kubeedge-lab-stop: $(READY) ## stop the processes of kubeedge-lab
	$(BIN)/python -m tests.kubeedge stop $(ARGS)

test-kubeedge: $(READY) ## build KubeEdge and run the tests that need it; needs Go
	$(BIN)/python -m tests.kubeedge build
	$(BIN)/python -m pytest -m kubeedge $(ARGS)

lock: $(READY) ## update the pinned versions in constraints/ from pyproject.toml
	$(RESOLVE) pyproject.toml --extra demo --extra gateway --extra provision --extra usb --group dev \
	    --output-file constraints/dev.txt
	$(BIN)/uv pip compile constraints/fuzz.in --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file constraints/fuzz.txt
	$(RESOLVE) pyproject.toml --extra device --extra usb --output-file constraints/device.txt
	$(RESOLVE) pyproject.toml --extra edge --override constraints/edge.overrides --output-file constraints/edge.txt
	$(RESOLVE) pyproject.toml --extra modelserver --output-file constraints/modelserver.txt
	$(BIN)/uv pip compile constraints/bench.in --constraint constraints/modelserver.txt --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file constraints/bench.txt
	$(RESOLVE) pyproject.toml --extra gateway --output-file constraints/gateway.txt
	$(RESOLVE) pyproject.toml --extra cloud --extra s3 --output-file constraints/cloud.txt
	echo hatchling | $(RESOLVE) - --output-file constraints/build.txt
	echo uv | $(RESOLVE) - --output-file constraints/installer.txt

clean: ## remove the files created by the other targets
	rm -rf $(VENV) .cache demo-out soak-out bench-out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints/dev.txt deploy/venv.sh
	sh deploy/venv.sh $(PYTHON) $(VENV)
	$(BIN)/python -m pip $(INSTALL) constraints/installer.txt --disable-pip-version-check --quiet
	# uv needs a quarter of pip's time; pip is the fallback where only pip is configured for a package index.
	$(BIN)/uv pip $(INSTALL) constraints/dev.txt --compile-bytecode --python $(BIN)/python || \
	    $(BIN)/python -m pip $(INSTALL) constraints/dev.txt --disable-pip-version-check
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)
