# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Each has its own virtual environment; delete .venv or .venv-test to start anew.

PYTHON ?= python3
SOURCES := pyproject.toml setup.py $(wildcard minilm/kernels/native*.p*) $(wildcard csrc/*)

.PHONY: help demo test test-deep lint sanitize mutants report-bert clean

help:
	@echo "make demo      set up .venv, then train a GPT on Shakespeare (half a minute) and let it write"
	@echo "make test      set up .venv-test, then run the whole test suite"
	@echo "make test-deep 20,000 generated cases or more, and 200 killed runs (some seven minutes on 2 cores)"
	@echo "make lint      ruff and mypy, in .venv-test"
	@echo "make sanitize  the kernels' tests with every access to memory checked (needs gcc; some five minutes)"
	@echo "make mutants   the tests' own test: wrong gradients that they must see (needs PyTorch; half an hour)"
	@echo "make report-bert SENTIMENT=TSV TAGS=CONLLU [CORPUS=TXT] [MODEL=DIR] [QUESTIONS='TRAIN VALID']"
	@echo "               every figure of BERT beside PyTorch, in one report (an hour; needs PyTorch and transformers)"
	@echo "make clean     remove both environments and everything that was built"

demo: .venv/installed
	.venv/bin/minilm demo $(ARGS)

test: .venv-test/installed
	.venv-test/bin/python -m pytest $(ARGS)

test-deep: .venv-test/installed
	MINILM_DEEP=20000 .venv-test/bin/python -m pytest -n 2 tests/deep tests/train/test_survival.py tests/train/test_long_runs.py $(ARGS)

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

sanitize: .venv-test/installed
	tests/sanitize.sh .venv-test/bin/python $(ARGS)

mutants: .venv-test/installed
	.venv-test/bin/python tests/mutation/run.py $(ARGS)

report-bert: .venv-test/installed
	.venv-test/bin/python benchmarks/bert_report.py $(if $(SENTIMENT),--sentiment "$(SENTIMENT)") \
	  $(if $(TAGS),--tags "$(TAGS)") $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(MODEL),--model "$(MODEL)") \
	  $(if $(QUESTIONS),--questions $(QUESTIONS)) $(ARGS)

# The installs are editable: a change of a Python file takes effect at once, one of csrc/ at the next make.
.venv/installed: .venv/bin/python $(SOURCES)
	.venv/bin/python -m pip install --quiet --editable '.[plot]'
	@touch $@

.venv-test/installed: .venv-test/bin/python $(SOURCES)
	.venv-test/bin/python -m pip install --quiet --editable '.[test,dev,eval]'
	@touch $@

.venv/bin/python .venv-test/bin/python:
	$(PYTHON) -m venv $(@D:/bin=) || { rm -rf $(@D:/bin=); \
	  echo "This Python has no venv module (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	$@ -m pip install --quiet --upgrade pip

clean:
	rm -rf .venv .venv-test build *.egg-info minilm/kernels/native.c minilm/kernels/*.so
