//! What the gate's parts cost, measured in one process without a network.
//!
//! `cargo bench --bench gate` runs Criterion over the steps of a check. With one of these words
//! it measures something that Criterion cannot, and prints it as JSON for `bench/run.py`:
//!
//! ```text
//! unseen                     first checks of licenses never seen, and bare signature verifications
//! memory LICENSES ANSWERS    memory after so many distinct licenses, each asked about, beside the
//!                            bounds of what is remembered; ANSWERS is `policies.answer_cache`
//! entry DATASETS LENGTH LICENSES
//!                            memory of one remembered license with dataset names of that length,
//!                            beside what it is reckoned at
//! checks KIND COUNT          just the checks, to count instructions: `remembered` or `fresh`
//! policies COUNT             so many policies of an operator, as text
//! leases PLACE               chunks of one counter set aside in a second: in a state file, or a database
//! register FILE LICENSES     a state file with so many registered licenses
//! streams GATE ADMIN TOKEN LICENSE COUNT
//!                            so many open streams, and how long they live after a revocation
//! ```
//!
//! Refuses to print absolute times as if they were promises: documents quote ratios only.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a measurement stops at the first thing that is not as it should be"
)]

mod memory;
mod scene;
mod state;
mod steps;
mod unseen;

use scene::{Scene, policies};

// What the gate itself allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<usize>().unwrap();
    match words.as_slice() {
        ["unseen"] => unseen::compare(),
        ["memory", licenses, answers] => memory::fill(number(licenses), answers),
        ["entry", datasets, length, licenses] => {
            memory::entry(number(datasets), number(length), number(licenses));
        }
        ["checks", kind, count] => checks(kind, number(count)),
        ["leases", place] => state::leases(place),
        ["register", file, licenses] => state::register(file, number(licenses)),
        ["streams", gate, admin, token, license, count] => {
            state::streams(gate, admin, token, license, number(count));
        }
        ["policies", count] => println!("{}", policies(number(count))),
        _ => steps::run(),
    }
}

/// The same question so many times.
fn checks(kind: &str, count: usize) {
    let answers = match kind {
        "remembered" => "32 MiB",
        "fresh" => "0 B",
        _ => panic!("`{kind}` is neither `remembered` nor `fresh`"),
    };
    let scene = Scene::new(0, answers);
    let request = scene.request();
    for _ in 0..count {
        scene.check(&request);
    }
}
