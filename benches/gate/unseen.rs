//! The first check of a license, beside the bare verification of its signature.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signature;
use tollgate::domain::CheckRequest;

use crate::scene::{Scene, request};

/// Licenses of one round.
const ROUND: usize = 200;
const ROUNDS: usize = 25;

/// Measures both by turns, so that what else the machine does meets both, and prints the medians
/// of the rounds.
pub(crate) fn compare() {
    let scene = Scene::new(0, "32 MiB");
    let key = scene.trusted();
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let tokens: Vec<String> = (0..ROUND).map(|number| scene.token(round * ROUND + number, &[])).collect();
        let signatures: Vec<_> = tokens.iter().map(|token| signature(token)).collect();
        let requests: Vec<CheckRequest> = tokens.iter().map(|token| request(token.clone())).collect();
        let begun = Instant::now();
        for (signed, signature) in &signatures {
            key.key.verify_strict(signed.as_bytes(), signature).unwrap();
        }
        bare.push(begun.elapsed());
        let begun = Instant::now();
        for request in &requests {
            scene.check(request);
        }
        whole.push(begun.elapsed());
    }
    let (bare, whole) = (median(bare), median(whole));
    println!("{}", serde_json::json!({ "signature_us": micros(bare), "first_check_us": micros(whole) }));
}

/// What is signed in a token, and the signature.
pub(crate) fn signature(token: &str) -> (&str, Signature) {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let bytes: [u8; 64] = URL_SAFE_NO_PAD.decode(signature).unwrap().try_into().unwrap();
    (signed, Signature::from_bytes(&bytes))
}

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort();
    rounds.get(rounds.len() / 2).copied().unwrap()
}

/// Microseconds for one of a round.
fn micros(round: Duration) -> f64 {
    round.as_secs_f64() * 1e6 / f64::from(u32::try_from(ROUND).unwrap())
}
