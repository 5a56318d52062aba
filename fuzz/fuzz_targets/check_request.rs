//! Fuzzes `bodies::check_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate_fuzz::run(tollgate_fuzz::bodies::check_request, bytes));
