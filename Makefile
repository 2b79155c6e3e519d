# One command for each thing that people do here; 'make help' lists them. CI runs the same commands.
# Everything lands in .venv. A stamp says what is installed there: a second run installs nothing.

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.installed-runtime
TESTING := $(VENV)/.installed-test
# Tools that look at packages have an environment of their own: what they need is no part of the node.
AUDIT_VENV := .venv-audit
AUDITING := $(AUDIT_VENV)/.installed
# Never a user's own site-packages: four of our packages have names that others use, too.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME

DEMO_OUT ?= demo-output
# In the order of the folders: the long files of tests/system would otherwise come last, beside an idle worker.
# One worker more than a small machine has cores, for tests wait for processes and disks a third of their time.
PYTEST_FLAGS ?= -n 3 --dist loadfile --no-loadscope-reorder
BUNDLE := models/bundles/mammography-phantom-demonstration

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install test test-slow test-training proof fuzz sbom audit-dependencies check format bundle benchmark wheel clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## install, start a node and a throw-away PACS, send made-up studies, show what comes back
	$(BIN)/dicom-node demo --out $(DEMO_OUT) $(DEMO_FLAGS)

install: $(RUNTIME) ## install what the node needs into .venv

test: $(TESTING) ## run the tests (PYTEST_FLAGS changes how)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-slow: $(TESTING) ## run the tests that make test leaves out: whole nodes that die, stop and are restored (minutes)
	$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

test-training: $(TESTING) ## run a whole training job in a worker (many minutes)
	DICOM_NODE_TEST_TRAINING=1 $(BIN)/python -m pytest -m slow tests/system/test_training_job.py

proof: $(TESTING) ## hold every result against the validators of others (many minutes)
	$(BIN)/python -m pytest -m slow_proof $(PYTEST_FLAGS)

fuzz: $(TESTING) ## damage conversations with the real listener (FUZZ_FLAGS: --seconds N --seed S)
	$(BIN)/python -m tests.fuzz_listener $(FUZZ_FLAGS)

sbom: $(AUDITING) $(TESTING) ## write the bill of materials of .venv (CycloneDX) to sbom.json; needs no network
	$(AUDIT_VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file sbom.json $(BIN)/python

audit-dependencies: $(AUDITING) ## ask a vulnerability service about every pinned package; says so where none answers
	$(AUDIT_VENV)/bin/python .ci/audit_dependencies.py constraints.txt

check: $(TESTING) ## form, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TESTING) ## put the code into the one form
	$(BIN)/ruff check --fix --select I
	$(BIN)/ruff format

bundle: $(RUNTIME) ## train the demonstration bundle again and compare; REPLACE=1 takes the new one
	sh .ci/rebuild-bundle $(BIN)/python $(BUNDLE) $(if $(REPLACE),replace)

benchmark: $(TESTING) ## time the whole node (BENCHMARK_FLAGS changes what)
	$(BIN)/python -m benchmarks.e2e $(BENCHMARK_FLAGS)

wheel: $(RUNTIME) ## build the wheel into dist/
	$(BIN)/python -m pip wheel . --no-deps --no-build-isolation --wheel-dir dist

clean: ## remove what these commands made, .venv included
	rm -rf $(VENV) $(AUDIT_VENV) sbom.json $(DEMO_OUT) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# hatchling first, from the constraints, instead of a fresh one fetched behind pip's curtain.
$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt \
		--no-build-isolation -e .
	@touch $@

$(TESTING): $(RUNTIME)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt \
		--no-build-isolation -e '.[test]'
	@touch $@

$(AUDITING): constraints.txt
	sh .ci/make-venv $(AUDIT_VENV) $(PYTHON)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		pip-audit cyclonedx-bom
	@touch $@

$(BIN)/python:
	sh .ci/make-venv $(VENV) $(PYTHON)
