# What people do with this repository. `make` alone lists it.
#
# GO, FLAGS and the limits below can be given on the command line, for example
# `make test TESTFLAGS=-short` or `make fuzz FUZZTIME=1m`.

GO        ?= go
TESTFLAGS ?=
FUZZTIME  ?= 10s
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS    = -X main.version=$(VERSION)
PACKAGES   = ./...

# One set of flags everywhere, so that builds, demo and tests compile a package once.
export GO
export GOFLAGS := $(strip $(filter-out -trimpath,$(shell $(GO) env GOFLAGS)) -trimpath)

.DEFAULT_GOAL := help
.PHONY: help build cross cross-quick demo setup setup-check test check test-race test-race-bytes test-long vet lint fuzz bench muxbench generate verify-generate clean

help: ## List what can be done here
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build both programs into bin/
	@echo "-> Building tunnoxd and tunnox into bin (some minutes the first time, seconds later)"
	@./test/build.sh -ldflags '$(LDFLAGS)' -o bin/ ./cmd/tunnoxd ./cmd/tunnox

cross: ## Build for every system, and check that agents are static, stripped and small
	@./test/cross.sh

cross-quick: # the agent for one of each family of systems, for CI
	@./test/cross.sh quick

demo: build ## Show a request going through, and stay up (ONCE=1: end after the check)
	@./test/build.sh -o bin/demo ./test/demo
	@DEMO_BUILT=1 ONCE="$(ONCE)" exec ./bin/demo

setup: ## Install or name what the tests need (Postgres, Redis)
	@./test/setup.sh

setup-check: # what make check needs besides
	@./test/setup.sh check

# What is rare and slow is not here but in make check: the race detector, and the
# tests that kill everything in turn. Tests that are marked parallel mostly wait, so
# four of them run at once.
LONG = ./test/chaos ./test/inspector

test: setup vet ## Run the tests, against a private Postgres and Redis
	$(GO) test -p 2 -parallel 4 -timeout 15m $(TESTFLAGS) $$($(GO) list $(PACKAGES) | grep -vxF "$$($(GO) list $(LONG))")

check: setup-check lint verify-generate test-long test-race fuzz ## Everything else before a change lands: style, generated code, races, faults, fuzzers

test-race: setup-check ## Run every test under the race detector
	CGO_ENABLED=1 $(GO) test -race -p 2 -parallel 4 -timeout 30m $(TESTFLAGS) $$($(GO) list $(PACKAGES) | grep -vxF "$$($(GO) list $(LONG))")

# The packages that move bytes: a race in them is the worst that can happen, and they
# compile under the detector without a database driver.
BYTES = ./agent ./bridge ./forwarder ./seal ./transport ./ingress

test-race-bytes: setup-check ## Run the tests of the byte path under the race detector
	CGO_ENABLED=1 $(GO) test -race -p 2 -timeout 15m $(TESTFLAGS) $(BYTES)

test-long: setup-check ## Run the tests that kill everything in turn, and the long forms of others
	$(GO) test -timeout 15m $(TESTFLAGS) $(LONG)
	$(GO) test -timeout 5m $(TESTFLAGS) ./httpapi -run TestEveryOperationWithInputOfItsSchema -schemafuzz 1m
	TUNNOX_TEST_STRICT=1 $(GO) test -timeout 5m $(TESTFLAGS) ./test/usage -run TestBandwidthOverTwoForwarders

vet:
	$(GO) vet $(PACKAGES)

lint: setup-check vet ## Check style: gofmt, go vet, golangci-lint, the OpenAPI document
	@files=$$(gofmt -l .); test -z "$$files" || { echo "not formatted (run gofmt -w):"; echo "$$files"; exit 1; }
	@./tools/run.sh golangci-lint run
	@cd transport/muxbench && $(GO) vet ./...
	@./test/lint-openapi.sh

fuzz: ## Fuzz every parser for FUZZTIME each, and the API for a minute
	@./test/fuzz.sh $(FUZZTIME)

bench: setup ## Measure, and print one table
	$(GO) run ./test/bench
	$(GO) test -run '^$$' -bench 'Carriers|BesideTLS' ./transport ./transport/quic

muxbench: ## Measure our multiplexer beside yamux and smux
	cd transport/muxbench && $(GO) test -run '^$$' -bench . .

generate: setup-check ## Write what is generated anew: code (sqlc, protoc, oapi-codegen), the OpenAPI document
	@./test/generate.sh

verify-generate: setup-check ## Fail when the generated code in the tree is not fresh
	@./test/generate.sh --verify

clean: ## Remove what was built
	rm -rf bin dist
