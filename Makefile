# The one door: everything that is done to this tree is a target here.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench soak

# Target-specific options, for example: make bench ARGS="get put --size 256MiB"
ARGS ?=

help:
	@echo 'make setup   install what is missing (asks apt-get, says so first) and make .venv; done at most once'
	@echo 'make demo    a real disk over HTTP and back, backed up, a running guest copied; compared by qemu-img; under two minutes'
	@echo 'make test    all tests, in under fifteen minutes'
	@echo 'make check   format, lint, types, import directions'
	@echo 'make bench   Mover beside nbdcopy and ovirt-imageio (ARGS="get put --runs 3")'
	@echo 'make soak    ten minutes of load and failures with verification'

setup: .venv/.set-up

# The stamp is written last, so that a set-up that failed is done again.
.venv/.set-up: pyproject.toml .ci/setup
	@.ci/setup

.venv-imageio/.set-up:
	@.ci/setup imageio

.venv-openstack/.set-up:
	@.ci/setup openstack

.venv-glance-store/.set-up:
	@.ci/setup glance-store

.venv-schemathesis/.set-up:
	@.ci/setup schemathesis

demo: setup
	.venv/bin/python -m mover.bench.demo $(ARGS)

# Their clients are what many users run: a test that leaves them out would say nothing about them.
# By four processes on two processors, since half of the time is waiting for what was started, and a file of tests to
# one of them: what a file's tests share is made once. In the order of tests/conftest.py, the slow ones first.
test: setup .venv-imageio/.set-up .venv-openstack/.set-up .venv-glance-store/.set-up .venv-schemathesis/.set-up
	.venv/bin/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports

# Without imageio the bench still runs, against nbdcopy alone; so its set-up may fail.
bench: setup
	@$(MAKE) --no-print-directory .venv-imageio/.set-up || echo 'bench: going on without ovirt-imageio' >&2
	.venv/bin/mover bench $(ARGS)

soak: setup
	.venv/bin/python -m tests.soak $(ARGS)
