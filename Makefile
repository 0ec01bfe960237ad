# What a developer runs. `make` alone lists it. CI runs the same targets through .ci/run.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build test chaos lint doc bench interop playground ci

CARGO ?= cargo
# Tools that .ci/setup installs beside the build come first.
export PATH := $(CURDIR)/target/tools/bin:$(CURDIR)/target/tools/node_modules/.bin:$(PATH)

# $(call need,tool): fails with what to do when a tool is missing.
need = command -v $(1) >/dev/null || { echo "$(1) is missing: run .ci/setup" >&2; exit 1; }

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the release binary, target/release/tokenbroker
	$(CARGO) build --release --locked

test: ## Run every test on SQLite and on a throwaway PostgreSQL (ARGS="name -- --nocapture")
	tests/postgres.sh $(CARGO) test --locked $(ARGS)

chaos: ## Kill workers and servers at random while 10,000 automation jobs run, on both engines
	TOKENBROKER_CHAOS_JOBS=$${TOKENBROKER_CHAOS_JOBS:-10000} tests/postgres.sh $(CARGO) test --locked --test it -- \
	  --nocapture --test-threads 1 automation::chaos

lint: doc ## Check formatting, clippy, documentation, protos and dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- --deny warnings
	@$(call need,buf)
	buf lint
	@$(call need,cargo-deny)
	@# cargo-deny judges what other platforms need, too, which nothing above has asked for.
	$(CARGO) fetch --locked --quiet
	@# No `advisories`: the advisory database is a git repository that must be fetched at each run, and this
	@# has to work, and answer the same, without a network. Run `cargo deny check advisories` where there is one.
	cargo-deny --locked --offline check bans licenses sources

doc: ## Build the documentation, private items too; warnings fail
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --no-deps --document-private-items

interop: ## Check against real OAuth clients and a provider, a headless Chromium, Python and grpcurl
	tests/interop/run.sh

playground: ## Start a provider to play with on http://127.0.0.1:9400
	@tests/interop/run.sh playground

bench: ## Measure; compare with docs/benchmarks.md (a machine doing nothing else)
	benches/run.sh

ci: ## Do what CI does, setting up the machine first (Debian 12)
	.ci/run
