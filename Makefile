# Everything is done from here; CI calls the same targets. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)
BIN := build/bin

# One modfile per tool, since their dependencies contradict each other. Tools are built once into build/tools.
tool = $(BIN)/../tools/$(1)
build/tools/buf: PKG := github.com/bufbuild/buf/cmd/buf
build/tools/protoc-gen-go: PKG := google.golang.org/protobuf/cmd/protoc-gen-go
build/tools/protoc-gen-go-grpc: PKG := google.golang.org/grpc/cmd/protoc-gen-go-grpc
build/tools/gofumpt: PKG := mvdan.cc/gofumpt
build/tools/golangci-lint: PKG := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
build/tools/%: tools/%/go.mod
	@echo "building $*"
	mkdir -p $(@D)
	go build -modfile=tools/$*/go.mod -o $@ $(PKG)

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build broker, agent and the development CA into build/bin
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/broker ./cmd/agent
	go build -trimpath -o $(BIN)/devca ./certs

ONCE ?=
.PHONY: run
run: build ## Start the whole world on this machine and play it (ONCE=1: end with status 0 if every expectation held)
	@go build -C demo -trimpath -o ../$(BIN)/demo .
	exec $(BIN)/demo --bin $(BIN) $(if $(ONCE),--once)

.PHONY: generate
generate: build/tools/buf build/tools/protoc-gen-go build/tools/protoc-gen-go-grpc ## Generate Go from the wire contract
	@export PATH="$$PWD/build/tools:$$PATH"
	buf format -w
	buf generate

.PHONY: check-generated
check-generated: build/tools/buf build/tools/protoc-gen-go build/tools/protoc-gen-go-grpc
	@export PATH="$$PWD/build/tools:$$PATH"
	buf lint
	buf format --diff --exit-code
	fresh=$$(mktemp -d)
	trap 'rm -rf "$$fresh"' EXIT
	buf generate --output "$$fresh"
	diff -r -x '*.proto' "$$fresh/proto" proto || { echo "generated code is not current: run make generate"; exit 1; }

.PHONY: fmt
fmt: build/tools/gofumpt ## Format the Go code
	build/tools/gofumpt -w .

.PHONY: vet
vet: build/tools/gofumpt check-generated ## The checks that are cheap: formatting, go vet, generated code, tidy modules
	@unformatted=$$(build/tools/gofumpt -l .)
	test -z "$$unformatted" || { echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go -C demo vet ./...
	go mod tidy -diff
	go -C demo mod tidy -diff

.PHONY: lint
lint: vet build/tools/golangci-lint ## Everything vet checks, and golangci-lint
	build/tools/golangci-lint run ./...

# Where goroutines share memory, tests run under the race detector; elsewhere it would only cost time.
RACED := ./internal/agent/... ./internal/broker/... ./internal/casefile/... ./internal/identity/... ./internal/keys/... \
	./internal/ledger/... ./internal/policy/... ./internal/relay/... ./internal/rpc/... ./internal/source/...
.PHONY: test
test: vet build ## Check what is cheap and run every test, with the race detector where it matters
	@raced=$$(go list $(RACED))
	CGO_ENABLED=1 go test -race $$raced
	go test $$(go list ./... | grep -vxF "$$raced")
	go -C demo test ./...

SOAK ?= 10m
.PHONY: soak
soak: build ## Run the long tests for SOAK (default 10m) each
	SLUIS_SOAK=$(SOAK) go test -count=1 -p 1 -timeout 24h -v ./internal/...

.PHONY: bench
bench: build ## Measure, and print the ratios that docs/performance.md explains
	go run ./tools/bench
