# Each target makes .venv on first use, and again only when what it is made from has changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) or sys.exit("constraints.txt needs Python \
3.11 or newer. Name one, as in: make install PYTHON=python3.12")

# JupyterLab wants to be asked for root, as one is in a container, and a browser needs a display.
LAB_FLAGS := $(if $(filter 0,$(shell id -u)),--allow-root)
ifeq ($(shell uname)$(DISPLAY)$(WAYLAND_DISPLAY),Linux)
LAB_FLAGS += --no-browser
NO_DISPLAY := No display here: open the address that follows in a browser; from another machine, \
after ssh -L 8888:localhost:8888 and the name of this one.
endif

OPEN_LAB = $(if $(NO_DISPLAY),echo "$(NO_DISPLAY)";) $(BIN)/jupyter lab $(LAB_FLAGS) nbs

.DEFAULT_GOAL := help
.PHONY: help install demo test lab play outputs readme site

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

install: $(READY)  ## Make .venv: fsgen and the exact versions that are tested

$(READY): pyproject.toml constraints.txt
	@echo "Installing into .venv, once; this takes some minutes."
	@test -x $(BIN)/python || { $(PYTHON) -c '$(NEW_ENOUGH)' && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY)  ## Train few-shot models on the embedded glyphs and see the flip, in minutes
	@$(BIN)/fsgen demo

# The quick checks go first. Then every notebook runs in a Jupyter kernel with fsgen installed, as a
# reader does, each exercise as shipped and solved; nbdev_test runs a quick few as plain code beside the checkout.
# Two workers of one thread each are far quicker than one of two threads: the tensors are small.
# Files go to the workers in the order of this line, so that a long one is not left for the end.
test: export OMP_NUM_THREADS := 1
test: export FSGEN_CACHE ?= $(CURDIR)/data/cache
test: $(READY)  ## Check style, exports, notebooks and tests; stop at the first failure
	$(BIN)/ruff check .
	$(BIN)/pytest -q tests/test_repository.py
	$(BIN)/nbdev_test --n_workers 2 --file_re '^(01|index)' --do_print --timing
	$(BIN)/pytest -q -x -n 2 --dist loadscope --no-loadscope-reorder --durations 15 \
		tests/test_command_line.py tests/test_jupyterlab.py tests/test_training.py nbs tests \
		--ignore tests/test_repository.py

lab: $(READY)  ## Open the notebooks in JupyterLab
	@$(OPEN_LAB)

play: $(READY)  ## Open chapter 24 there: draw signs of your own, and the model draws them, too
	@$(OPEN_LAB) --LabApp.default_url=/lab/tree/24_play.ipynb

outputs: $(READY)  ## Run notebooks and store their outputs, all or as in: make outputs ONLY="06 07"
	@OMP_NUM_THREADS=1 $(BIN)/python tools/make_outputs.py $(ONLY)

readme: $(READY)  ## Make README.md from nbs/index.ipynb
	@$(BIN)/python tools/make_readme.py

site: $(READY)  ## Make a page of each notebook in _docs, without running it
	@rm -rf _docs
	@$(BIN)/python tools/make_site.py
