#!/bin/sh
# Runs every fuzz target for a while: fuzz/run.sh [seconds per target] [target...]
#
# Needs nothing but Rust and a C++ compiler: libFuzzer comes with its crate. What the fuzzer finds interesting is
# kept beside what is built, so that a longer run goes on where the last one ended; the committed corpus only
# seeds it. A crash leaves its input in fuzz/artifacts/<target>.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-10}
[ $# -eq 0 ] || shift
target=${CARGO_TARGET_DIR:-target}
RUSTC_WRAPPER="$PWD/fuzz/instrument.sh" cargo build --release --manifest-path fuzz/Cargo.toml --target-dir "$target"
[ $# -gt 0 ] || set -- $(ls fuzz/corpus)
# A target makes its scene in a temporary folder, and is ended without a chance to remove it.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
for name in "$@"; do
    echo "fuzz target $name: $seconds s"
    found="$target/corpus/$name"
    mkdir -p "$found" "fuzz/artifacts/$name"
    if ! "$target/release/$name" "$found" "fuzz/corpus/$name" "-artifact_prefix=fuzz/artifacts/$name/" \
        "-max_total_time=$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 2>"$TMPDIR/log"; then
        cat "$TMPDIR/log"
        exit 1
    fi
    grep -E "stat::(number_of_executed_units|new_units_added)|DONE" "$TMPDIR/log"
done
