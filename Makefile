# make demo   the main job on real data, in minutes; needs Python >= 3.10 and a package index
# make test   everything installed, the mm extra included, and all tests
# make test-models   every mixer in models of every family; an hour or two
# make lint   what the tests do not see
# make docs   the site, in docs/_build/html; Python >= 3.11

UV ?= $(shell command -v uv || echo .tools/bin/uv)
TIMM_TRAIN ?=
WORKERS ?= 2

# uv.lock keeps where packages were found the last time, and would pass over a folder of wheels
# that is named now. The versions stand in pyproject.toml.
SYNC = rm -f uv.lock && $(UV) sync

.PHONY: demo test test-models lint docs
demo: $(UV)
	$(SYNC) --inexact --no-dev --extra demo
	.venv/bin/mixplug demo classification

# UV_FIND_LINKS may name a folder of wheels, such as one of onedl-mmcv that was built before.
# WORKERS is the number of processes; a file of tests stays in one of them.
# TIMM_TRAIN may name timm's own train.py, which then is tested beside ours.
test: $(UV)
	$(SYNC) --inexact --all-extras
	MIXPLUG_TIMM_TRAIN=$(TIMM_TRAIN) .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile

# An hour or two: every mixer in one model of every family of timm and mmpretrain. The results are
# the tables of docs/reference/models.
test-models: $(UV)
	$(SYNC) --inexact --all-extras
	.venv/bin/mixplug doctor models --host timm --out docs/reference/models/timm.json
	.venv/bin/mixplug doctor models --host mmpretrain --out docs/reference/models/mmpretrain.json
	.venv/bin/python -m pytest tests/hosts/every_model.py

lint: $(UV)
	$(SYNC) --inexact --all-extras
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# Warnings are errors, links that lead nowhere included. All extras, since the reference is made of
# what each of them registers.
docs: $(UV)
	$(SYNC) --inexact --all-extras --group docs
	.venv/bin/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

.tools/bin/uv:
	python3 -m venv .tools
	.tools/bin/pip install --quiet uv
