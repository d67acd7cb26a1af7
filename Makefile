# The index of commands. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
UV := $(or $(shell command -v uv),.venv/bin/uv)
BIN := .venv/bin
SBOM_LOCKS := pipeline engine-cpu engine-cuda demo-checkpoints

.PHONY: help setup demo test test-fast test-kills test-damage fuzz lint format lock checkpoints bench-warehouse bench-judging \
	bench-verdicts audit sbom clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: requirements/pipeline.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Quantgate needs Python 3.11 or newer: install it (Debian: apt install python3 python3-venv) or name one with PYTHON=…"; exit 2; }
	@echo "set-up: the pipeline's environment in .venv (about half a minute, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is missing: apt install python3-venv"; exit 2; }
	@test -x "$(UV)" || $(BIN)/python -m pip install --quiet "$$(grep -o '^uv==[^ ;]*' requirements/pipeline.txt)"
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements/pipeline.txt
	@$(UV) pip install --quiet --no-deps --python $(BIN)/python -e .
	@touch $@

setup: .venv/.ready ## make the pipeline's environment

demo: .venv/.ready ## three precisions in, one validated table out (FRESH=1 measures all again)
	@$(BIN)/quantgate demo $(if $(FRESH),--fresh)

test: .venv/.ready lint ## everything, real vLLM included
	$(BIN)/python -m pytest -m "not kills and not damage" -n 2 --dist loadfile --no-loadscope-reorder

test-fast: .venv/.ready ## all but the tests that start an engine
	$(BIN)/python -m pytest -m "not e2e and not kills and not damage"

test-kills: .venv/.ready ## 50 kills at random moments, of workers and of a real engine too (about an hour)
	$(BIN)/python -m pytest -m kills -s

test-damage: .venv/.ready ## damaged checkpoints, and one against itself, on a real engine (about half an hour; OUT=folder records)
	$(if $(OUT),QUANTGATE_VERDICTS_OUT=$(OUT)) $(BIN)/python -m pytest -m damage -s

fuzz: .venv/.ready ## more junk for every parser and the command line (EXAMPLES=2000 of each; about an hour)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(BIN)/python -m pytest tests/fuzz --timeout 7200
	$(BIN)/python -m tests.fuzz.campaign 5

lint: .venv/.ready ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## compile the pinned requirements again (needs uv)
	cd requirements && uv pip compile --quiet --universal --python-version 3.11 --no-emit-package quantgate \
		--no-emit-index-url --no-emit-find-links --no-header ../pyproject.toml --extra dev -o pipeline.txt
	cd requirements && uv pip compile --quiet --python-version 3.11 --override engine-overrides.txt --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header engine-cpu.in -o engine-cpu.txt
	# torch's wheels differ between indexes and machines: its version is the pin.
	cd requirements && sed -i -E '/^torch==/,/^    # via/{/--hash/d;s/ \\$$//}' engine-cpu.txt
	cd requirements && uv pip compile --quiet --python-version 3.11 --override engine-overrides.txt \
		--no-emit-index-url --no-emit-find-links --no-header demo-checkpoints.in -o demo-checkpoints.txt

checkpoints: .venv/.ready ## make the demo's checkpoints and tasks anew (OUT=folder; under 15 minutes)
	@test -x .venv-checkpoints/bin/python || $(UV) venv --quiet --python 3.11 .venv-checkpoints
	@$(UV) pip install --quiet --no-deps --python .venv-checkpoints/bin/python -r requirements/demo-checkpoints.txt \
		$(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu)
	.venv-checkpoints/bin/python demo/make_checkpoints.py $(if $(OUT),--out $(OUT))

bench-warehouse: .venv/.ready ## the warehouse at scale (SAMPLES=1e6,1e7 OUT=folder; 1e8 takes long and 25 GiB)
	nice -n 5 $(BIN)/python -m benchmarks.warehouse --samples $(or $(SAMPLES),1e6) --out $(or $(OUT),.quantgate/benchmarks)

bench-verdicts: .venv/.ready ## error rates, power and documents to a verdict (OUT=folder; about ten minutes)
	nice -n 5 $(BIN)/python -m benchmarks.verdicts --seed $(or $(SEED),0) --out $(or $(OUT),.quantgate/benchmarks/verdicts)

bench-judging: .venv/.ready ## judging 10 million samples, as few large runs and as many small ones (OUT=folder; 3 GiB)
	$(BIN)/python -m benchmarks.judging --out $(or $(OUT),.quantgate/benchmarks)

audit: .venv/.ready ## the lock files against known advisories, by pip-audit too where its service is reached
	@$(BIN)/python requirements/audit.py "$(UV)"

sbom: .venv/.ready ## what the environments are made of, as CycloneDX (OUT=folder, default build/sbom)
	@mkdir -p $(or $(OUT),build/sbom)
	@for lock in $(SBOM_LOCKS); do \
		PYTHONWARNINGS=ignore $(UV) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements/$$lock.txt \
			--pyproject pyproject.toml --output-reproducible --of JSON -o $(or $(OUT),build/sbom)/$$lock.json || exit 1; \
		echo "$(or $(OUT),build/sbom)/$$lock.json"; \
	done

clean: ## remove environments and caches, not what was measured (.quantgate)
	rm -rf .venv .venv-checkpoints .mypy_cache .ruff_cache .pytest_cache
