#!/bin/sh
# Cargo calls this in place of rustc (RUSTC_WRAPPER): the gate itself is compiled so that it tells
# libFuzzer where an input went; everything else as it is, so that it can be shared with the gate's own build.
set -eu
case " $* " in
*" --crate-name tollgate "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
