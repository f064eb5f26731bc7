# Everything a fresh machine needs: python3, make, git and a C compiler. No root.
PYTHON ?= python3
BIN := .venv/bin
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: help demo federation test proof bench lint clean

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[ray,test,lint]'
	touch $@

demo: .venv/ready  ## four countries, one study, real genomes: writes results/demo/report.html
	rm -rf results/demo
	$(BIN)/fl-simulate simulations/studies/demo.toml --sites simulations/data/europe1000g --out results/demo --measure

federation: .venv/ready  ## the same study over a real SuperLink and four SuperNodes on loopback
	rm -rf results/federation
	$(BIN)/python -m simulations.deployment --out results/federation

test: export PYTHONDONTWRITEBYTECODE =  # empty is unset: modules are compiled once, not by every process of every test
test: .venv/ready  ## every test but the slow proofs
	$(BIN)/python -m tests.compiled
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not proof" -n 3 --dist loadfile --no-loadscope-reorder

proof: .venv/ready  ## claims that take minutes to measure
	$(BIN)/python -m pytest -m proof -s

bench: .venv/ready  ## speed and memory, beside what the field uses
	$(BIN)/python -m simulations.benchmarks.noise
	$(BIN)/python -m simulations.benchmarks.masking
	$(BIN)/python -m simulations.benchmarks.genotypes
	$(BIN)/python -m simulations.benchmarks.million
	$(BIN)/python -m simulations.benchmarks.curves
	$(BIN)/python -m simulations.benchmarks.survival

lint: .venv/ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment and all results
	rm -rf .venv results runs build dist *.egg-info
