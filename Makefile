# The daily actions. `make` alone names them.
.DEFAULT_GOAL := help
.PHONY: help run test test-fast lint fmt generate bench fuzz

export CARGO_PROFILE_DEV_DEBUG ?= 0

help: ## name the actions
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: ## the whole API on this machine, with a demo in it
	./examples/quickstart/run

test: ## every suite
	./tests/run

test-fast: ## tests that need no server
	./tests/run unit

lint: ## formatting, clippy, rustdoc, directions, licences, links
	./tests/run lint

fmt: ## format the code
	cargo fmt --all

generate: ## write again what is generated
	./proto/wire/generate
	cargo build --workspace --locked --bin postern-tasks
	target/debug/postern-tasks generate

bench: ## the RPC under load (others: ./tests/bench --list)
	./tests/bench rpc

fuzz: ## every fuzz target for a minute each
	./proto/wire/fuzz/run
