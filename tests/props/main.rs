//! Laws: what must hold for every token, license, request and file, shown on many of each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod authzen;
mod conjunction;
mod corpus;
mod drafts;
mod gate;
mod paths;
mod questions;
mod requests;
mod samples;
mod terms;
mod tokens;
mod validity;

/// What the fuzz targets do with their bytes.
#[allow(unreachable_pub, reason = "its other home is a library")]
#[path = "../../fuzz/src/bodies.rs"]
mod bodies;
