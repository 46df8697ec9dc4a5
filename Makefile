# Three commands for a newcomer: make setup, make demo, make test. `make check` is what CI runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The window build of OpenCV on request: make setup OPENCV=desktop. It stays until OPENCV=server asks for the other.
OPENCV ?= $(if $(wildcard $(VENV)/.installed-desktop),desktop,server)
DATA := $(or $(CENTERSTREAM_DATA),../shared/data)
DEMO_CLIP := tests/data/pets09_excerpt.mp4
STAMP := $(VENV)/.installed-$(OPENCV)

.PHONY: setup demo test test-whole test-parts test-all faults soak check bench pictures lock clean

setup: $(STAMP)

# Exactly what requirements.lock pins, by uv when it can be had, by pip when not.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	@rm -f $(VENV)/.installed-*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	@# Never both builds of OpenCV: they overwrite each other.
	@$(BIN)/python -m pip uninstall --quiet --yes opencv-python 2>/dev/null
	$(call install,-r requirements.lock)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python .ci/ahead.py
ifeq ($(OPENCV),desktop)
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python-headless
	$(call install,opencv-python)
endif
	@touch $@

install = if test -x $(BIN)/uv; then $(BIN)/uv pip install --quiet --python $(BIN)/python $(1); \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi

demo: setup
	@mkdir -p out
	$(BIN)/python run_pipeline.py $(DEMO_CLIP) --out out/demo.mp4 --jsonl out/demo.jsonl
	@echo
	@echo "The overlay video is $(CURDIR)/out/demo.mp4"

# What a user runs: a few minutes. Whole runs beside all else, which mostly waits; each half has a temporary folder of its
# own, for whole runs look for what was left behind there.
test: setup
	$(MAKE) --no-print-directory -j2 test-whole test-parts

test-whole test-parts:
	folder=$$(mktemp -d) && TMPDIR=$$folder $(BIN)/python -m pytest -q $(MARKED) $(if $(filter test-whole,$@),,--ignore) \
		tests/whole; code=$$?; rm -rf $$folder; exit $$code

# And whole trainings, large exports, every worker lost in every way, stops at many moments, and the faults.
test-all: setup
	$(MAKE) --no-print-directory -j2 test-whole test-parts MARKED='-m "not faults"'
	$(BIN)/python -m pytest -q -m faults

# What breaks a run from outside, with real cameras and signals; the table goes to docs/faults.md.
faults: setup
	rm -f docs/faults.md
	CENTERSTREAM_ADDS=1000 CENTERSTREAM_FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest -q -m faults

# Cameras and random faults for so long, and what grows; the curves go to docs/soak.svg.
MINUTES ?= 60
soak: setup
	$(BIN)/python -m tests.whole.soak --minutes $(MINUTES) --out docs/soak

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test-all

bench: setup
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done
	if test -d $(DATA)/pets09; then $(BIN)/python benchmarks/accuracy_pets09.py; \
	else echo "skipped accuracy_pets09.py: no pets09 in $(DATA), set CENTERSTREAM_DATA"; fi
	if test -d $(DATA)/mot; then $(BIN)/python -m benchmarks.mot $(DATA)/mot; \
	else echo "skipped benchmarks.mot: no mot in $(DATA), set CENTERSTREAM_DATA"; fi

# Of the live page, for docs; needs Debian's chromium.
pictures: setup
	$(BIN)/python -m docs.make_pictures

# Pins for every Python from 3.11; names no package index.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra server --extra dev --extra onnxruntime --extra openvino --extra train --extra mqtt \
		--no-emit-index-url --no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf out $(VENV)
