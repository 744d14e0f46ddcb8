# make demo   runs the main job: a local cluster, a FineTuneJob, a model that answers
# make test   passes the tests
# Both make what they need: .venv (Python packages, pinned by constraints.txt) and .tools (kubectl, helm, prometheus).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools/.ready
PACKAGES := crds operator engine trainer eval serving local sdk cli
EDITABLE := $(foreach package,$(PACKAGES),--editable ./$(package))
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/.tools/bin:$(PATH)

.PHONY: demo test chaos lint generate docs fuzz audit check clean help

help: ## Says what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.ready $(TOOLS) ## Trains a small model on the bundled questions and lets it answer
	@examples/kbqa/demo.sh

# Two processes: one takes what needs a cluster, the other all the rest.
test: $(VENV)/.ready $(TOOLS) ## Runs the tests
	$(BIN)/pytest --numprocesses 2 --no-loadscope-reorder $(PYTEST_ARGS)

chaos: $(VENV)/.ready $(TOOLS) ## Disturbs runs in every way there is, and checks what comes of them
	$(BIN)/python -m tests.chaos --runs 200 $(CHAOS_ARGS)

lint: $(VENV)/.ready ## Style, types, walls between packages, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python crds/generate.py --check
	$(BIN)/python -m charts.generate --check

generate: $(VENV)/.ready ## Writes the CRDs, the chart's values and the reference pages from the types
	$(BIN)/python crds/generate.py
	$(BIN)/python -m charts.generate
	$(BIN)/python bench/peers.py

docs: $(VENV)/.ready ## Builds the documents as a site in .site, in an environment of its own
	NO_MKDOCS_2_WARNING=1 "$$($(BIN)/python tools/environment.py .tools/site mkdocs-material==9.8.2)" -m mkdocs build --quiet
	@echo .site/index.html

check: lint test ## What CI runs

# Bounded: some fifteen minutes on 2 cores. What fails is printed with the seed, or the walk, that repeats it.
fuzz: $(VENV)/.ready $(TOOLS) ## Strange resources and requests to the operator and the servers, long walks around controllers
	$(BIN)/python bench/operator_hostile.py
	$(BIN)/python bench/http_fuzz.py
	$(BIN)/pytest --hypothesis-profile long tests/local/controllers/test_*_properties.py

# Asks the Python Package Index's advisories, so it needs an index that has them.
audit: $(VENV)/.ready ## Known vulnerabilities of the pinned packages, and their licences
	$(BIN)/python tools/licences.py
	"$$($(BIN)/python tools/environment.py .tools/audit pip-licenses==5.5.5 pip-audit==2.10.1)" -m pip_audit --no-deps --disable-pip --strict -r constraints.txt

clean: ## Removes what make made
	rm -rf $(VENV) .tools .site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# DeepSpeed is a source distribution that looks for torch while it is built: it comes after torch, without isolation.
$(VENV)/.ready: constraints.txt pyproject.toml $(foreach package,$(PACKAGES),$(package)/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip==$(shell sed -n 's/^pip==//p' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt torch setuptools wheel ninja hatchling editables packaging py-cpuinfo
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation deepspeed
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation $(EDITABLE) --group dev
	@touch $@

$(TOOLS): tools/kubectl.py tools/prometheus.py $(VENV)/.ready
	$(BIN)/python tools/kubectl.py .tools/bin
	$(BIN)/python tools/prometheus.py .tools/bin
	@touch $@
