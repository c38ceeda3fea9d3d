# The verbs of this repository. Each installs the Debian packages it needs if they are missing (scripts/packages).

.PHONY: help build demo test check bench clean

# Tests start real instances, and so run as root; compiling never does.
ifneq ($(shell id -u),0)
AS_ROOT := sudo --preserve-env env PATH=$(PATH) RUSTUP_HOME=$(or $(RUSTUP_HOME),$(HOME)/.rustup) CARGO_HOME=$(or $(CARGO_HOME),$(HOME)/.cargo)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(AS_ROOT)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := $(AS_ROOT)
endif

help:
	@echo "make demo    build, and see a stack deployed, changed under load and rolled back"
	@echo "make test    everything that continuous integration checks"
	@echo "make check   formatting, clippy and the repository's own rules"
	@echo "make bench   measured beside crun, runc, docker, nginx, HAProxy, Envoy, Caddy and Traefik"
	@echo "make build   target/release/basalt"
	@echo "make clean   remove what was built"

build:
	@scripts/install build run
	cargo build --release --locked

demo:
	@scripts/install build run demo
	@scripts/demo

# An incremental cache is only bytes where nothing is compiled twice.
test: export CARGO_INCREMENTAL := 0
test: check
	@scripts/install build run test
	cargo test --workspace --locked
	cargo test --workspace --locked --test e2e -- --test-threads=1

check:
	@scripts/install build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --test e2e --locked -- -D warnings
	cargo xtask tidy

bench:
	@scripts/install build run bench
	@scripts/bench

clean:
	$(AS_ROOT) rm -rf target
