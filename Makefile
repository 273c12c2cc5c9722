# Each target does its own set-up the first time and starts within seconds the next time.
.PHONY: help run demo examples test check bench generate lock release-contract
.DEFAULT_GOAL := help
PYTHON_BIN := .venv/bin/python

help:
	@echo "make run     bring up engine, service, gateway and page, and print their URLs"
	@echo "make demo    train, load, prove and compare once, headless; report in runs/demo/report.json"
	@echo "make examples  train all five examples; fails where a figure is not the one of its README"
	@echo "make test    unit, contract, end to end, browser: all tests but the trainings of make examples"
	@echo "make check   format, lint, types, arrows, protos, generated code"
	@echo "make bench   print the speed figures as ratios measured in one run"

run:
	@deploy/setup.sh
	@exec .venv/bin/hotlora up

demo:
	@deploy/setup.sh
	@exec $(PYTHON_BIN) -m examples.demo

examples:
	@deploy/setup.sh
	@exec $(PYTHON_BIN) -m examples

test:
	@deploy/setup.sh --browser
	@exec $(PYTHON_BIN) -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

check:
	@deploy/setup.sh
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	PYTHONPATH=deploy/vllm_plugin .venv/bin/lint-imports --no-cache
	cd protos && ../.venv/bin/buf lint && ../.venv/bin/buf format --diff --exit-code --path hotlora
	cd protos && ../.venv/bin/buf breaking --against released.binpb --path hotlora
	$(PYTHON_BIN) protos/generate.py --check

bench:
	@deploy/setup.sh
	@exec $(PYTHON_BIN) -m benchmarks

generate:
	@deploy/setup.sh
	$(PYTHON_BIN) protos/generate.py

lock:
	@deploy/setup.sh
	@deploy/lock.sh

# Once for each release: from then on `make check` refuses protos that break it.
release-contract:
	@deploy/setup.sh
	cd protos && ../.venv/bin/buf build --exclude-source-info --path hotlora -o released.binpb
