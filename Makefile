# The commands of this repository. `make` alone lists them.
#
# Needed: Go and make. `make test` installs whatever else the tests use.

LINT := go tool -modfile=tools/go.mod golangci-lint
# bench/ is a module of its own.
LINT_BENCH := go tool -modfile=../tools/go.mod golangci-lint

# The Caddy that the end-to-end tests run. Built once here, for all packages.
TEST_CADDY := $(CURDIR)/build/test/caddy

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## run the quickstart and say where to look
	go run ./cmd/caddy run --config examples/quickstart/Caddyfile

.PHONY: build
build: ## build/caddy, Caddy with this module in it
	CGO_ENABLED=0 go build -o build/caddy ./cmd/caddy

# Packages are tested one after the other (-p 1): some of them load the machine
# or measure time. Those that open streams are tested over both kinds that there
# are below HTTP/1.1. Everything is compiled before, on all cores. No version
# control stamp, because git refuses to read a clone that another user owns.
.PHONY: test
test: export SSE_TEST_REQUIRE_ALL = 1
test: export SSE_TEST_CADDY = $(TEST_CADDY)
test: ## install what the tests need, then run all of them with -race
	scripts/install-test-deps
	rm -rf build/test && mkdir -p build/test
	go build -race -buildvcs=false -o build/test/ ./...
	go test -race -p 1 -timeout 25m ./...
	SSE_TEST_DIRECT_WRITES=off go test -race -p 1 -timeout 25m . ./internal/e2e
	go -C bench test -race -p 1 ./...

.PHONY: bench
bench: ## measure it beside other servers; FLAGS='-rows fanout' chooses what
	scripts/install-bench-peers
	go -C bench run . $(or $(FLAGS),-out results)

.PHONY: check
check: fmt-check lint tidy-check cross links ## everything CI asks besides the tests

.PHONY: fmt
fmt: ## format all Go code
	$(LINT) fmt
	cd bench && $(LINT_BENCH) fmt

.PHONY: fmt-check
fmt-check:
	$(LINT) fmt --diff
	cd bench && $(LINT_BENCH) fmt --diff

.PHONY: lint
lint: ## run the linters of .golangci.yml
	$(LINT) run
	cd bench && $(LINT_BENCH) run

.PHONY: tidy-check
tidy-check:
	go mod tidy -diff
	go -C tools mod tidy -diff
	go -C bench mod tidy -diff

# Every platform we say we run on must compile, tests included.
PLATFORMS := cross-linux cross-darwin cross-windows
.PHONY: cross $(PLATFORMS)
cross: $(PLATFORMS)
$(PLATFORMS): export CGO_ENABLED = 0
$(PLATFORMS): cross-%:
	GOOS=$* go build -buildvcs=false ./...
	GOOS=$* go vet ./...
	GOOS=$* go -C bench vet ./...

.PHONY: links
links:
	go test ./internal/docs
