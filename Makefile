# The usual commands by name. `.ci/run` calls the same ones.
.PHONY: test lint fmt docs bench clients chart fuzz ci

test:
	cargo test

lint:
	cargo clippy --all-targets -- -D warnings

fmt:
	cargo fmt

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

bench:
	python3 bench/run.py

clients:
	cargo build --release
	examples/clients/run.sh "$${CARGO_TARGET_DIR:-target}/release/tollgate"

chart:
	helm/check.py

fuzz:
	fuzz/run.sh

ci:
	.ci/run
