//! Stores of state: the laws that all of them keep, and what each does besides.

#[macro_use]
pub(crate) mod conformance;
mod embedded;
pub(crate) mod hub;
mod postgres;
