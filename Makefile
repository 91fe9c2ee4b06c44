# Every target with a `##` comment describes itself: `make help`.
SHELL := /bin/bash
CARGO ?= cargo
ARCH := $(shell uname -m)
RELEASE := target/$(ARCH)-unknown-linux-gnu/release/dhow

.DEFAULT_GOAL := help
.PHONY: help build static demo prepare test check bench fmt

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

build: ## Build the release binary
	$(CARGO) build --locked --release

static: build ## Build, and make sure that the binary needs nothing but the kernel
	@if ldd $(RELEASE) 2>/dev/null | grep -q '=>'; then echo "$(RELEASE) is dynamic:"; ldd $(RELEASE); exit 1; fi
	@ls -l $(RELEASE)

demo: build ## Build, make a root file system from a Debian package, run a container
	integration/demo $(RELEASE)

prepare: ## Install what the tests need, or say what is missing
	integration/prepare test

test: prepare ## Run all tests (as root: also as users with and without subordinate ids)
	$(CARGO) test --locked

check: ## Formatting, lints, documentation, floors, licences: what a change must pass before the tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked --lib imports_point_down
	$(CARGO) test --locked --test integration licences

bench: build ## Measure beside docker, podman, bubblewrap and the bare kernel work (root)
	integration/prepare bench
	integration/bench/bench $(RELEASE)

fmt: ## Format the code
	$(CARGO) fmt
