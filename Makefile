# Every target with a `##` comment describes itself: `make help`.
SHELL := /bin/bash
CARGO ?= cargo
ARCH := $(shell uname -m)
PREFIX ?= /usr/local
SHARE = $(DESTDIR)$(PREFIX)/share
RELEASE := target/$(ARCH)-unknown-linux-gnu/release/dhow

.DEFAULT_GOAL := help
.PHONY: help build static demo install prepare test check bench fmt

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

build: ## Build the release binary
	$(CARGO) build --locked --release

static: build ## Build, and make sure that the binary needs nothing but the kernel
	@if ldd $(RELEASE) 2>/dev/null | grep -q '=>'; then echo "$(RELEASE) is dynamic:"; ldd $(RELEASE); exit 1; fi
	@ls -l $(RELEASE)

install: ## Install the binary, completions and manual pages to PREFIX (/usr/local), beneath DESTDIR
	@test -x $(RELEASE) || { echo "there is no $(RELEASE) yet: make build"; exit 1; }
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	install -D -m 755 $(RELEASE) $(DESTDIR)$(PREFIX)/bin/dhow
	$(RELEASE) completion bash >$(SHARE)/bash-completion/completions/dhow
	$(RELEASE) completion zsh >$(SHARE)/zsh/site-functions/_dhow
	$(RELEASE) completion fish >$(SHARE)/fish/vendor_completions.d/dhow.fish
	$(RELEASE) man $(SHARE)/man/man1

demo: build ## Build, make a root file system from a Debian package, run a container
	integration/demo $(RELEASE)

prepare: ## Install what the tests need, or say what is missing
	integration/prepare test

# One test more at a time than there are processors: many of them wait for a disk or for a second to pass.
test: prepare ## Run all tests (as root: also as users with and without subordinate ids)
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(nproc) + 1))} $(CARGO) test --locked

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
