# Start with `make demo` and `make test`; each creates the virtual environment first. `make help` lists all targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RESOLVE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
    --upgrade --quiet

INSTALL = install --require-hashes -r
# Demo, tests and benchmarks start hundreds of processes: each would compile every module again where bytecode is not kept.
export PYTHONDONTWRITEBYTECODE =
# Test modules run in parallel processes, each with its own brokers and ports; three, because many tests wait. Four were not faster on two cores,
# and each takes 0.9 GB. They are started in the order of collection, see tests/conftest.py.
WORKERS ?= --numprocesses 3 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help catalogue screenshots docs check-links demo test check fuzz fuzz-pictures soak bench bench-learning bench-scale images messages lock clean \
    kubeedge-lab kubeedge-lab-stop test-kubeedge test-wheel test-clients test-homeassistant test-mlflow test-images test-compose test-broker test-s3 test-ray \
    kubeedge-pods kubeedge-pods-stop test-kubeedge-pods

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
	$(BIN)/gleaner schema --out schemas/v1 --reference docs/reference.md --man docs/gleaner.1 --check

fuzz: $(READY) ## fuzz every parser of external bytes: MINUTES=10
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r constraints/fuzz.txt
	$(BIN)/python -m tests.fuzz $(or $(MINUTES),10)

fuzz-pictures: $(READY) ## compare all image decoders on mutated pictures: MINUTES=10 SEED=1
	$(BIN)/python -m tests.pictures $(or $(MINUTES),10) $(or $(SEED),1)

soak: $(READY) ## inject faults into the whole system: MINUTES=20 SEED=1; VARIANT=auto-ack breaks a rule
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1) \
	    $(if $(VARIANT),--variant $(VARIANT)) $(ARGS)

bench: $(READY) ## compare with alternatives, see docs/benchmarks.md: MINUTES=25, ARGS="--quick pipeline"
	$(BIN)/python -m bench --minutes $(or $(MINUTES),25) $(ARGS)
	$(BIN)/python -m bench.render

bench-scale: $(READY) ## measure sizes beyond one machine, under an hour: ARGS="--quick failover"; Ray if it is installed
	$(BIN)/python -m bench.scale $(ARGS)

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

kubeedge-pods: $(READY) ## deploy real pods through a KubeEdge on this machine; needs root, Debian, Go: ARGS="--nodes edge-1"
	$(BIN)/python -m tests.pods start $(ARGS)

kubeedge-pods-stop: $(READY) ## stop kubeedge-pods and remove what it left on this machine
	$(BIN)/python -m tests.pods stop $(ARGS)

test-kubeedge-pods: $(READY) ## test Gleaner's pods on a KubeEdge with faults; needs root, Debian, Go
	$(BIN)/python -m tests.pods build
	$(BIN)/python -m pytest -m pods --ignore tests/pods/walk $(ARGS)
	$(BIN)/python -m pytest -m pods tests/pods/walk $(ARGS)

images: $(READY) ## build container images: IMAGES="edge gateway", ARGS="--arch arm64 --archives DIR"
	$(BIN)/python -m deploy.images $(IMAGES) $(ARGS)

# protoc 25, the last whose Python code runs with every later protobuf: newer code refuses a runtime two majors newer.
messages: $(READY) ## generate the messages of TensorFlow Serving from edge/serving/messages.proto
	$(BIN)/uv run --no-project --with grpcio-tools==1.62.3 --with 'setuptools<80' python -m grpc_tools.protoc \
	    --proto_path=. --python_out=. --pyi_out=. edge/serving/messages.proto

screenshots: $(READY) ## take the pictures of docs/console.md on a demonstration; needs Chromium
	$(BIN)/python -m tests.console.screenshots

catalogue: $(READY) ## bring the console's texts into its message catalogues
	$(BIN)/python deploy/catalogue.py

test-images: $(READY) ## run the tests that build or start containers; downloads compose's schema
	$(BIN)/python -m pytest -m images tests/deploy $(ARGS)

test-compose: $(READY) ## start everything of deploy/compose and use it; needs root, podman-compose or Docker, and `make images`
	$(BIN)/uv venv --quiet --allow-existing .cache/podman-compose
	$(BIN)/uv pip install --quiet --python .cache/podman-compose podman-compose==1.6.0
	PATH="$(CURDIR)/.cache/podman-compose/bin:$$PATH" $(BIN)/python -m pytest -m compose tests/deploy/compose $(ARGS)

test-wheel: $(READY) ## install the wheel with each extra in an environment of its own, and use it; downloads 3 GB
	$(BIN)/python -m pytest -m wheel tests/deploy $(ARGS)

test-clients: $(READY) ## run the examples in other languages whose toolchain is here; downloads their libraries
	$(BIN)/python -m pytest -m clients tests/examples $(ARGS)

test-homeassistant: $(READY) ## test with a real Home Assistant; installs 0.5 GB into the cache
	$(BIN)/python -m pytest -m homeassistant tests/edge/homeassistant $(ARGS)

test-mlflow: $(READY) ## test with a real MLflow server; installs 0.6 GB into the cache
	$(BIN)/python -m pytest -m mlflow tests/cloud/reporting $(ARGS)

# BROKER=HOST:PORT[,HOST:PORT...], the nodes of one cluster; its listener with certificates, if it has one:
# ACCESS=HOST:PORT SITE=DIR, a folder of `gleaner provision` with edge-1 and its devices pi-1 and pi-2.
test-broker: $(READY) ## test a broker against what Gleaner requires of one: BROKER=HOST:PORT, else mosquitto
	GLEANER_BROKER=$(BROKER) GLEANER_BROKER_ACCESS=$(ACCESS) GLEANER_BROKER_SITE=$(SITE) \
	    $(BIN)/python -m pytest tests/broker_contract $(ARGS)

NEWER_BROKER_TESTS = tests/broker_contract tests/bus tests/cloud/collector tests/device
test-newer-broker: $(READY) ## run the tests of MQTT on mosquitto of Debian 13, unpacked into the cache
	PATH="$$($(BIN)/python -m tests.newer_broker):$$PATH" GLEANER_LABELS=100000 \
	    $(BIN)/python -m pytest $(NEWER_BROKER_TESTS) $(ARGS)

test-s3: $(READY) ## test the dataset on two real S3 servers; needs Go, installs s3fs into the environment
	GOBIN=$(CURDIR)/.cache/versitygw go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	$(BIN)/uv pip install --quiet --constraint constraints/cloud.txt --python $(BIN)/python s3fs
	$(BIN)/uv venv --quiet --allow-existing .cache/moto
	$(BIN)/uv pip install --quiet --python .cache/moto 'moto[server]==5.2.5'
	GLEANER_MOTO=$(CURDIR)/.cache/moto/bin/moto_server GLEANER_VERSITYGW=$(CURDIR)/.cache/versitygw/versitygw $(BIN)/python -m pytest -m s3 tests/cloud/dataset tests/edge/models/transfer $(ARGS)

KUBERAY = github.com/ray-project/kuberay/ray-operator@v1.5.0
TRAINING_OPERATOR = github.com/kubeflow/training-operator@v1.9.3
SOURCE_OF = cd /tmp && go mod download -json $(1) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'
test-ray: $(READY) ## embed on a Ray cluster of several processes; installs Ray into the environment, needs Go for the CRDs
	$(BIN)/uv pip install --quiet --constraint constraints/ray.txt --python $(BIN)/python ray
	GLEANER_KUBERAY=$$($(call SOURCE_OF,$(KUBERAY))) GLEANER_TRAINING_OPERATOR=$$($(call SOURCE_OF,$(TRAINING_OPERATOR))) \
	    $(BIN)/python -m pytest -m "ray or not ray" tests/cloud/ray_jobs tests/deploy/test_rayjob.py tests/deploy/test_tfjob.py $(ARGS)

docs: $(READY) ## build the documentation site in site/; fails if a link is broken
	$(BIN)/python deploy/docs_site.py .cache/docs
	$(BIN)/mkdocs build --strict --quiet

check-links: $(READY) ## visit every link of the documents to another site; needs the Internet
	$(BIN)/python deploy/check_links.py

lock: $(READY) ## update the pinned versions in constraints/ from pyproject.toml
	$(RESOLVE) pyproject.toml --extra demo --extra gateway --extra notify --extra provision --extra usb \
	    --extra http --extra heic --extra damage --extra onnx --extra traces --group dev --output-file constraints/dev.txt
	$(BIN)/uv pip compile constraints/fuzz.in --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file constraints/fuzz.txt
	$(BIN)/uv pip compile constraints/tables.in --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file constraints/tables.txt
	$(BIN)/uv pip compile constraints/spark.in --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file constraints/spark.txt
	$(RESOLVE) pyproject.toml --extra device --extra http --output-file constraints/device.txt
	$(RESOLVE) pyproject.toml --extra device --extra usb --extra http --extra heic --output-file constraints/device-all.txt
	$(RESOLVE) pyproject.toml --extra edge --output-file constraints/edge.txt
	$(RESOLVE) pyproject.toml --extra modelserver --output-file constraints/modelserver.txt
	$(RESOLVE) pyproject.toml --extra litert --output-file constraints/litert.txt
	$(BIN)/uv pip compile constraints/bench.in --constraint constraints/modelserver.txt --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file constraints/bench.txt
	$(RESOLVE) pyproject.toml --extra gateway --output-file constraints/gateway.txt
	$(RESOLVE) pyproject.toml --extra notify --output-file constraints/notify.txt
	$(RESOLVE) pyproject.toml --extra cloud --extra s3 --output-file constraints/cloud.txt
	$(RESOLVE) pyproject.toml --extra cloud --extra s3 --extra ray --constraint constraints/cloud.txt \
	    --output-file constraints/ray.txt
	$(RESOLVE) pyproject.toml --extra console --output-file constraints/console.txt
	$(RESOLVE) pyproject.toml --extra mlflow --output-file constraints/mlflow.txt
	$(BIN)/uv pip compile constraints/homeassistant.in --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet --output-file constraints/homeassistant.txt
	$(BIN)/uv pip compile constraints/mlflow-server.in --constraint constraints/mlflow.txt --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet \
	    --output-file constraints/mlflow-server.txt
	printf 'hatchling\ncyclonedx-python-lib\n' | $(RESOLVE) - --output-file constraints/build.txt
	echo uv | $(RESOLVE) - --output-file constraints/installer.txt

clean: ## remove the files created by the other targets
	rm -rf $(VENV) .cache site demo-out soak-out bench-out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints/dev.txt deploy/venv.sh
	sh deploy/venv.sh $(PYTHON) $(VENV)
	$(BIN)/python -m pip $(INSTALL) constraints/installer.txt --disable-pip-version-check --quiet
	# uv needs a quarter of pip's time; pip is the fallback where only pip is configured for a package index.
	$(BIN)/uv pip $(INSTALL) constraints/dev.txt --compile-bytecode --python $(BIN)/python || \
	    $(BIN)/python -m pip $(INSTALL) constraints/dev.txt --disable-pip-version-check
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)
