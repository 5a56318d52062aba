#!/bin/sh
# Runs every fuzz target for a while: fuzz/run.sh [seconds per target] [target...]
#
# Builds once, into a target folder of its own. What the fuzzer finds interesting is kept beside
# it, so that a longer run goes on where the last one ended; the committed corpus only seeds it.
# Needs `cargo install cargo-fuzz`. A crash leaves its input in fuzz/artifacts/<target>.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-10}
[ $# -eq 0 ] || shift
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-target/fuzz}"
# The fuzzer needs flags that only an unstable compiler has; this lets a stable one pass for it.
export RUSTC_BOOTSTRAP=1
# A target makes its scene in a temporary folder, and is ended without a chance to remove it.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
options="--sanitizer ${FUZZ_SANITIZER:-address}"
# shellcheck disable=SC2086 # the options are words
cargo fuzz build $options
[ $# -gt 0 ] || set -- $(cargo fuzz list)
for target in "$@"; do
    found="$CARGO_TARGET_DIR/corpus/$target"
    mkdir -p "$found" "fuzz/corpus/$target"
    # shellcheck disable=SC2086
    cargo fuzz run $options "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1
done
