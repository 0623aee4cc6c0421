# What people do with this repository. `make` alone lists it.
#
# GO, FLAGS and the limits below can be given on the command line, for example
# `make test TESTFLAGS=-short` or `make fuzz FUZZTIME=1m`.

GO        ?= go
TESTFLAGS ?=
FUZZTIME  ?= 10s
BENCHTIME ?= 1s
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS    = -X main.version=$(VERSION)
PACKAGES   = ./...
STATICCHECK = v0.8.2

export PATH := $(PATH):$(shell $(GO) env GOPATH)/bin

.DEFAULT_GOAL := help
.PHONY: help build demo setup test test-race vet lint fuzz bench generate verify-generate clean

help: ## List what can be done here
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build both programs into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/tunnoxd ./cmd/tunnox

demo: ## Show a request going through, and stay up (ONCE=1: end after the check)
	@$(GO) build -o bin/demo ./test/demo
	@ONCE="$(ONCE)" exec ./bin/demo

setup: ## Install or name what the tests need (Postgres, Redis)
	@./test/setup.sh

# The byte path runs under the race detector in every test run, when there is a C
# compiler for it; make test-race does the same for all. Everything under it would
# cost five minutes of compiling on two cores from a cold cache.
RACY  = ./agent ./forwarder ./transport
RACE := $(if $(shell command -v "$$($(GO) env CC)"),-race)

test: setup vet ## Run every test, against a private Postgres and Redis
	@status=0; \
	./test/lint-openapi.sh || status=1; \
	$(GO) test $(RACE) -p 2 -timeout 8m $(TESTFLAGS) $(RACY) || status=1; \
	$(GO) test -p 2 -timeout 8m $(TESTFLAGS) $$($(GO) list $(PACKAGES) | grep -vxF "$$($(GO) list $(RACY))") || status=1; \
	exit $$status

test-race: setup ## Run every test under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -p 2 -timeout 20m $(TESTFLAGS) $(PACKAGES)

vet:
	$(GO) vet $(PACKAGES)

lint: vet ## Check style: gofmt, go vet, staticcheck; golangci-lint and the OpenAPI document when there are tools for it
	@files=$$(gofmt -l .); test -z "$$files" || { echo "not formatted (run gofmt -w):"; echo "$$files"; exit 1; }
	$(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) $(PACKAGES)
	@./test/lint-openapi.sh
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
	else echo "golangci-lint is not installed; see https://golangci-lint.run/welcome/install"; fi

fuzz: ## Fuzz every parser for FUZZTIME each, and the API for a minute
	@./test/fuzz.sh $(FUZZTIME)

bench: setup ## Measure, and print one table
	$(GO) run ./test/bench

generate: ## Write what is generated anew: code (sqlc, protoc; those that are present), the OpenAPI document
	@./test/generate.sh

verify-generate: generate ## Fail when the generated code in the tree is not fresh
	@git diff --exit-code --stat -- '*.pb.go' '*.sql.go' '*sqlc*' '*/queries/*' || { echo "the generated code above is not fresh: commit what make generate wrote"; exit 1; }

clean: ## Remove what was built
	rm -rf bin dist
