# Two commands need nothing but Python (3.11 or newer) and make:
#   make train    the environment, then nbs/train.ipynb on the synthetic world
#   make test     the environment, then every check
# and make notebook ARGS='-p epochs 200' runs nbs/train.ipynb with your parameters
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
NOTEBOOK := train
# one thread a process: two notebooks run side by side, and results do not depend on the number of cores
export NO_ALBUMENTATIONS_UPDATE := 1
# threads that wait sleep: spinning ones, which is the default, make a busy machine ten times slower
export OMP_WAIT_POLICY := PASSIVE

.PHONY: env train notebook test check notebooks pytest tutorials gpu docs readme docker export lab clean

env: $(READY)

# pip compiles on one core, an old one reads large files slowly; modules are compiled on all cores, those of tests never
$(READY): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "geoseg needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|testing)/' $(VENV)/lib || true
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name python3
	@touch $@

# freed memory is kept for the next step: on Linux a sixth to a quarter of the time (nbs/benchmarks.ipynb)
train notebook: export MALLOC_MMAP_MAX_ := 0
train notebook: export MALLOC_TRIM_THRESHOLD_ := 17179869184
train: ARGS := -f small.yaml
train: notebook

# any notebook of nbs/ with parameters: make notebook ARGS='-p epochs 200'; NOTEBOOK=evaluate; paths as seen from nbs/
notebook: env
	mkdir -p runs
	cd nbs && ../$(BIN)/papermill $(NOTEBOOK).ipynb ../runs/$(NOTEBOOK).ipynb --inject-output-path $(ARGS)
	@echo "executed notebook: runs/$(NOTEBOOK).ipynb; a run is the newest folder in runs/"

test: env check pytest

# notebooks and package in step, notebooks clean, README true, code tidy
check: env
	$(BIN)/ruff check .
	$(BIN)/python tools/check.py

# every notebook that defines a module runs from top to bottom
notebooks: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/test_modules.py

# all tests, those notebooks among them
pytest: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests

# the long notebooks, with their figures; finished runs are kept as CSV rows and not repeated
tutorials: env
	cd nbs/tutorials && for f in *.ipynb; do ../../$(BIN)/papermill $$f $$f || exit 1; done
	cd nbs && ../$(BIN)/papermill benchmarks.ipynb benchmarks.ipynb
	$(BIN)/nbdev_clean

# what a GPU makes of it, in under eight minutes; nbs/benchmarks.ipynb shows the table. Without the environment: python tools/gpu.py
gpu: env
	$(BIN)/python tools/gpu.py

docs: env
	$(BIN)/python tools/docs.py

readme: env
	$(BIN)/python tools/readme.py

# Dockerfile and pinned.txt, the versions of this environment; docker build -t geoseg . makes an image that serves a run
docker: env
	$(BIN)/python tools/dockerfile.py

export: env
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/readme.py

# its root is the top of the clone: runs can be opened, too; its cells and terminals find geoseg; as root: ARGS=--allow-root
lab: env
	mkdir -p runs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/nbs/index.ipynb $(ARGS)

clean:
	rm -rf runs/* _proc _docs build *.egg-info
