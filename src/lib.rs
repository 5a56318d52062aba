//! Tollgate decides, for every use of shared data, whether a signed license allows it.
//!
//! The map. Imports run strictly leftward (`tests/it/layering.rs` fails otherwise):
//!
//! ```text
//! domain < document < config < telemetry < {cache watch} < store < keyring
//!        < {license policy quota revocation audit} < decision < cases < {administration hub} < listener
//!        < {grpc http injector} < app < cli < main
//! ```
//!
//! Start at [`decision::Pdp::check`]: it reads as the steps of a decision.
pub mod administration;
pub mod app;
pub mod audit;
pub mod cache;
pub mod cases;
pub mod cli;
pub mod config;
pub mod decision;
pub mod document;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod hub;
pub mod injector;
pub mod keyring;
pub mod license;
pub mod listener;
pub mod policy;
pub mod proto;
pub mod quota;
pub mod revocation;
pub mod store;
pub mod telemetry;
pub mod watch;
