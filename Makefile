# The commands of this repository. `make` alone lists them.
#
# Needed: Go and make. `make test` installs whatever else the tests use.

LINT := go tool -modfile=tools/go.mod golangci-lint
# bench/ is a module of its own.
LINT_BENCH := go tool -modfile=../tools/go.mod golangci-lint

# The Caddy that the end-to-end tests run. Built once here, for all packages.
TEST_CADDY := $(CURDIR)/build/test/caddy

# `go test` that can run several times at once and remembers how long everything took.
GOTEST := $(CURDIR)/build/test/gotest $(CURDIR)/build/test/times

# Everything but the tests builds as xcaddy builds releases, so that all of it is compiled once.
RELEASE_FLAGS := $(strip $(GOFLAGS) -trimpath)
fmt fmt-check lint tidy-check links: export CGO_ENABLED = 0
fmt fmt-check lint tidy-check links: export GOFLAGS = $(RELEASE_FLAGS)

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## run the quickstart and say where to look
	go run ./cmd/caddy run --config examples/quickstart/Caddyfile

.PHONY: build
build: ## build/caddy, Caddy with this module in it
	CGO_ENABLED=0 go build -o build/caddy ./cmd/caddy

# Packages that load the machine or measure time are tested alone, the others side by side: most of their
# time they wait. There are two kinds of streams below HTTP/1.1, and what shows how streams behave is tested
# over both. No version control stamp, because git refuses to read a clone that another user owns.
ALONE := ./internal/xcaddy ./internal/e2e
.PHONY: test
test: export SSE_TEST_REQUIRE_ALL = 1
test: export SSE_TEST_CADDY = $(TEST_CADDY)
test: ## install what the tests need, then run all of them with -race
	scripts/install-test-deps
	rm -rf build/test && mkdir -p build/test
	go build -race -buildvcs=false -o $(TEST_CADDY) ./cmd/caddy
	go build -buildvcs=false -o build/test/ ./scripts/gotest
	$(GOTEST) test -race -timeout 25m -p 2 $$(go list ./... | grep -vxF "$$(go list $(ALONE))") \
		-- SSE_TEST_DIRECT_WRITES=off -race -timeout 25m -p 1 . ./internal/stream ./internal/live
	$(GOTEST) test -race -timeout 25m -p 1 $(ALONE)
	$(GOTEST) test SSE_TEST_DIRECT_WRITES=off -race -timeout 25m ./internal/e2e
	cd bench && $(GOTEST) test -race -timeout 25m -p 1 ./...
	@$(GOTEST) longest 15

.PHONY: release
release: ## build/release: archives, bills of materials and checksums; VERSION=v1.2.3
	scripts/release "$(VERSION)" $(RELEASE_PLATFORMS)

.PHONY: soak
soak: export SOAK_FAULTS = $(or $(FAULTS),1000)
soak: export SOAK_SEED = $(SEED)
soak: export SOAK_MINUTES = $(MINUTES)
soak: export SOAK_REPORT = $(CURDIR)/docs/reliability.md
soak: ## let faults loose on real processes; FAULTS=1000 SEED=n MINUTES=m
	scripts/install-test-deps
	go test -count=1 -v -timeout 0 -run TestNothingIsLost ./internal/soak

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
	go -C tools/sbom mod tidy -diff
	go -C tools/manifests mod tidy -diff
	go -C bench mod tidy -diff

# Every platform we say we run on must compile, tests included.
PLATFORMS := cross-linux cross-darwin cross-windows
.PHONY: cross $(PLATFORMS)
cross: $(PLATFORMS)
$(PLATFORMS): export CGO_ENABLED = 0
$(PLATFORMS): export GOFLAGS = $(RELEASE_FLAGS)
$(PLATFORMS): cross-%:
	GOOS=$* go build -buildvcs=false ./...
	GOOS=$* go vet ./...
	GOOS=$* go -C bench vet ./...

.PHONY: links
links:
	go test ./internal/docs
