# Everything runs in .venv, which every target sets up first; `make` alone explains.
PYTHON ?=
SEED ?= 0
ARGS ?=
TORCH ?=
# Small models lose more than they win by a second thread, and much on a busy machine.
OMP_NUM_THREADS ?= 1
# Processes that share the tests, file by file; some tests, asked for by name, may want to print.
TEST_JOBS ?= $(if $(ARGS),0,2)

THREADS = OMP_NUM_THREADS=$(OMP_NUM_THREADS) MKL_NUM_THREADS=$(OMP_NUM_THREADS)
# A new process would run a test that hung or crashed again, and so would the next: one is enough.
SHARED = -n $(TEST_JOBS) --dist loadfile --max-worker-restart 1
PYTEST = $(THREADS) .venv/bin/python -m pytest $(SHARED)

# For tools/dev/find_python.sh.
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help install install-original demo demo-classification test test-quick test-original lint clean

help:  ## Show this text
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):[a-z -]*## /  make \1\t/p' Makefile | expand -t 28
	@echo
	@echo 'Variables:'
	@echo '  PYTHON=python3.12   the interpreter that makes .venv (default: the first of python3.11,'
	@echo '                      python3.12, python3.10 and python3 that works)'
	@echo '  SEED=1              of the demo (default: 0)'
	@echo '  TORCH=2.6.0         of the original packages (default: 2.1.2)'
	@echo '  ARGS="-k ssd -x"    passed on to pytest'
	@echo '  TEST_JOBS=4         processes for the tests (default: 2, or none of their own with ARGS)'
	@echo '  OMP_NUM_THREADS=2   threads for the tests (default: 1)'
	@echo '  MAX_JOBS=2          compilers that run at once (default: one for each core)'
	@echo '  MMDET_ADASAP_CACHE  where the compiled mmcv is kept (default: ~/.cache/mmdet_adasap)'
	@echo '  FORCE_CUDA=1        compile mmcv for GPUs as well (needs nvcc)'
	@echo
	@echo 'The first call downloads torch (minutes, 5 GB on the disk) and compiles mmcv (3 minutes'
	@echo 'on 2 cores). Needed: Python 3.10 to 3.12 with headers and venv, g++, make.'

install:  ## Set up .venv: torch, mmcv (compiled once), mmdet, mmpretrain, this project
	@python=$$(sh tools/dev/find_python.sh) && "$$python" tools/dev/setup_env.py

install-original:  ## Set up .venv-original: the packages that OpenMMLab published, torch 2.1, numpy 1
	@python=$$(sh tools/dev/find_python.sh) && "$$python" tools/dev/setup_env.py --stack original \
		$(if $(TORCH),--torch $(TORCH))

demo: install  ## Train, prune and test a small detector on corrupted images; ends with a table
	.venv/bin/python tools/demo/detection.py --seed $(SEED)

demo-classification: install  ## The same for classifiers, three arms and three seeds
	.venv/bin/python tools/demo/classification.py

test: install  ## Run the tests, but for the slow ones (ARGS="-m slow")
	$(PYTEST) $(ARGS)

# All but what is marked slow or long, see [tool.pytest.ini_options] in pyproject.toml.
test-quick: install  ## Run the tests that are quick, of every part: under 2 minutes
	$(PYTEST) -m 'not slow and not long' $(ARGS)

# All but the tests of tools/, which set up environments, draw sets and time things; and a chain of
# all programs, which the others leave out as slow.
test-original: install-original  ## Run the tests with those packages, and a chain of all programs
	$(THREADS) .venv-original$(TORCH:%=-torch%)/bin/python -m pytest $(SHARED) \
		-m 'not slow or chain' --ignore=tests/test_tools $(ARGS)

# All four are run, also where one fails; `ruff format .` and `ruff check --fix .` mend most.
lint: install  ## Check format, style, imports and the layout of the package
	@failed=0; \
	.venv/bin/python -m ruff format --check . || failed=1; \
	.venv/bin/python -m ruff check . || failed=1; \
	.venv/bin/lint-imports --no-logo --no-cache || failed=1; \
	.venv/bin/python tools/dev/house.py --check || failed=1; \
	exit $$failed

clean:  ## Remove .venv, .venv-original and the caches of tools; data, work_dirs and the compiled mmcv stay
	rm -rf .venv .venv-original* build dist mmdet_adasap.egg-info .pytest_cache .ruff_cache
	find mmdet_adasap tests tools configs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
