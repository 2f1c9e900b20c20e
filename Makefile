# SPDX-License-Identifier: Apache-2.0
# The front door. The build itself is CMake (CMakePresets.json); each goal here is one short call.
#
#   make              build the program: build/release/weir, and build/dev for developing
#   make demo         the whole story on this machine: serve, drift, retrain, roll out (ARGS=…)
#   make test         all tests; ends with "N passed, N failed" (ARGS=--unit, --e2e, --asan, --tsan)
#   make check        style, layers, banned calls, both compilers, static analysis (ARGS=NAME…)
#   make bench        measure against peers and targets (AREA=serving)
#   make fuzz         run every fuzz target (SECONDS=30)
#   make fmt          format the C sources in place
#   make asan tsan    all tests under AddressSanitizer and UBSan, under ThreadSanitizer
#   make cov          line coverage of the unit tests, in build/cov/coverage.txt
#   make doc          write the pages and tables that derive from .def files
#   make clean        remove build/ (.deps/ and the compiler cache stay)

SHELL := /bin/bash
JOBS ?= $(shell nproc)
SECONDS ?= 30
AREA ?=
ARGS ?=
export JOBS
unexport SECONDS

.PHONY: all demo test check bench fuzz fmt asan tsan cov doc clean bootstrap help

all: bootstrap
	@scripts/build release
	@scripts/build dev

bootstrap:
	@scripts/bootstrap --if-needed

demo: bootstrap
	@scripts/build release weir
	@demo/run $(ARGS)

test:
	@scripts/test $(ARGS)

asan tsan:
	@scripts/test --$@ $(ARGS)

check: bootstrap
	@scripts/check $(ARGS)

bench:
	@scripts/bench $(AREA)

fuzz: bootstrap
	@scripts/fuzz $(SECONDS)

fmt:
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r clang-format-14 -i

cov: bootstrap
	@scripts/coverage

doc: bootstrap
	@scripts/check --write

clean:
	rm -rf build

help:
	@sed -n 's/^#   //p' Makefile
