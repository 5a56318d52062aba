//! Fuzzes `bodies::ext_authz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate_fuzz::run(tollgate_fuzz::bodies::ext_authz, bytes));
