# distilbench: `make` lists the targets. Every target sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON      ?= python3
VENV        ?= .venv
STUDY       ?= distilbert
PROFILE     ?= full
DEVICE      ?= cpu
TORCH_INDEX ?=
EXTRAS      ?= all
# Test files at once: one more than two cores, since the cluster, pages and processes are mostly waited for.
WORKERS     ?= 3
# Coverage slows the tests: where nobody waits for the result. Processes that they start are not followed (pyproject).
COVERAGE    ?= $(if $(filter true,$(CI)),--cov --cov-report=term)

# The active conda environment or virtualenv is used when this checkout is installed in it; else $(VENV).
# Make splits words at spaces, so no function that takes words gets a path of this machine.
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
IN_ACTIVE := $(if $(ACTIVE),$(shell "$(ACTIVE)/bin/python" -I -c "import pathlib, sys, distilbench; \
	print(pathlib.Path(distilbench.__file__).resolve().parents[1] == pathlib.Path(sys.argv[1]).resolve())" \
	"$(CURDIR)" 2>/dev/null))
ifeq ($(IN_ACTIVE),True)
  BIN := $(ACTIVE)/bin
  installed =
else
  BIN := $(if $(filter /%,$(VENV)),$(VENV),$(CURDIR)/$(VENV))/bin
  installed = $(VENV)/.installed-$(1)
endif
export PATH := $(BIN):$(PATH)
# Containers often set it; then each of the many processes of a run would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

RUN  := $(call installed,run)
TEST := $(call installed,test)
BOOK := $(call installed,book)
LINT := $(call installed,lint)
comma := ,

.PHONY: help env smoke benchmark analyse test test-slurm test-long lint lab book pdf pdf-deps slides report release nightly
.PHONY: notebooks pages embedded-classifier embedded-intents clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s $$'\t'

# Tiers of extras into $(VENV): one, or several with a hyphen between them, which are resolved once. torch comes first,
# and alone, when an index is named: its build is then the one that stays, and what it depends on comes from the ordinary
# registry, where the pinned versions are.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@test -x "$(BIN)/python" || $(PYTHON) -m venv $(VENV)
	@$(if $(filter-out book lab lint slides,$(subst -, ,$*)),test -d $(VENV)/lib/python*/site-packages/torch || \
	  "$(BIN)/python" scripts/announce_torch.py "$(BIN)/python" $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)))
	$(if $(TORCH_INDEX),"$(BIN)/python" -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps torch --index-url $(TORCH_INDEX))
	"$(BIN)/python" -m pip install -q --disable-pip-version-check $(COMPILE) -c constraints.txt -e '.[$(subst -,$(comma),$*)]'
	@touch $(foreach tier,$(subst -, ,$*),$(VENV)/.installed-$(tier)) $@

env: $(call installed,$(EXTRAS))  ## set up everything (EXTRAS=run for a batch node; TORCH_INDEX=URL for a CPU build of torch)
	@echo "distilbench is installed for $(BIN)/python"

# A module is compiled when it is first imported: most of what is installed never is.
smoke: COMPILE := --no-compile
smoke: $(call installed,run-book)  ## set up, then real text through a real model to a finished run and its page in the report (minutes)
	distilbench run $(STUDY) --profile smoke
	distilbench book

benchmark: $(RUN)  ## the real measurement: STUDY, PROFILE, DEVICE (hours on a CPU)
	distilbench run $(STUDY) --profile $(PROFILE) --device $(DEVICE)

analyse: $(RUN)  ## plots and findings of the newest finished run (RUN_IDS="a b" overlays several), checked first
	distilbench verify run $(or $(firstword $(RUN_IDS)),latest)
	distilbench analyse $(STUDY) $(RUN_IDS)

test: $(TEST)  ## set up, then lint and the tests that fit into minutes (as root also what `make test-slurm` needs)
	@[ $$(id -u) -ne 0 ] || scripts/system_packages.sh slurm || echo "no cluster can be installed: its tests are skipped"
	$(MAKE) --no-print-directory lint
	python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu" $(COVERAGE)

test-slurm: $(call installed,cluster)  ## the tests on a real SLURM cluster, which is installed (Debian, root) and started on this machine
	scripts/system_packages.sh slurm
	python -m pytest -n 2 -m "slurm and not slow" tests/whole/test_cluster.py

test-long: $(TEST)  ## also the tests that take many minutes (and those on a GPU, where there is one)
	python -m pytest -m "slow or gpu"

lint: $(LINT)  ## ruff on code and notebooks, the floors, and the workflows against GitHub's schema (offline)
	ruff check .
	ruff format --check .
	lint-imports
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

lab: $(RUN) $(call installed,lab)  ## JupyterLab on the notebooks
	jupyter labextension disable "@jupyterlab/apputils-extension:announcements"
	jupyter lab notebooks/

book: $(BOOK)  ## build the report into book/_build/html, with a page for the newest run of this machine
	distilbench book

pdf: $(BOOK)  ## build the report as book/_build/pdf/report.pdf: typeset by TeX (pdf-deps), else printed by Chromium
	distilbench pdf

pdf-deps:  ## install TeX and what the tests of the PDF need (Debian, root)
	scripts/system_packages.sh pdf

report: $(BOOK) $(call installed,slides)  ## the whole report: pages, PDF and slides of the published runs
	distilbench book --no-own
	distilbench pdf
	distilbench slides

release: report  ## the report, and what it needs to be checked, into dist/ with checksums (of committed code)
	distilbench release
	distilbench verify book
	distilbench verify release

nightly: $(RUN) $(BOOK)  ## texts, a smoke run of every study, the published runs, the book and its links (CHECK_EXTERNAL=1: all)
	python scripts/nightly.py

slides: $(call installed,slides)  ## twelve slides of the published runs, as PowerPoint, into book/_build/slides
	distilbench slides

notebooks: $(TEST)  ## execute the notebooks in the ci profile and keep their outputs (what the regression tests compare)
	scripts/refresh_notebooks.sh

pages: $(RUN)  ## execute the analysis again over every published run, after a change of it
	python scripts/refresh_pages.py

embedded-classifier: $(RUN)  ## train the embedded classifier of film reviews again, compare with the committed one (minutes)
	python -m distilbench.sources.embedded_training movies

embedded-intents: $(RUN)  ## the same of the embedded classifier of commands in 23 intents
	python -m distilbench.sources.embedded_training intents

clean:  ## remove what was built (runs in results/ and caches stay)
	rm -rf $(VENV) book/_build dist .pytest_cache .ruff_cache .coverage* *.egg-info
