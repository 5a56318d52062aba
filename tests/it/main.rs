//! Tests of the whole gate from the outside, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod admin_access;
mod administration;
mod authzen;
mod caches;
mod cases;
mod chart;
mod collector;
mod command_line;
mod decision_log;
mod docs;
mod dry_run;
mod envoy;
mod fleet;
mod gate;
mod house;
mod hub;
mod injector;
mod keys;
mod kubernetes;
mod layering;
mod observed;
mod operations;
mod operators;
mod order;
mod policies;
mod postgres;
mod probes;
mod quickstart;
mod readme;
mod secrets;
mod serving;
mod store;
mod streams;
mod surfaces;
mod tls;
mod volume;
mod web;

/// Licenses and requests that often fit each other.
#[allow(dead_code, reason = "its other home asks for more of them")]
#[path = "../props/samples.rs"]
mod samples;
