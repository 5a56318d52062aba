//! Memory from outside: what a gate remembers stays within its bounds, and strangers cannot make it
//! forget.

use tollgate::proto::v1::{CheckBatchRequest, CheckRequest};

use super::gate::{Client, Gate, Issuer, ask, is_allowed};

/// A batch of fresh licenses is much work for a gate that was not built for speed.
const PATIENT: (&str, &str) = ("listeners.limits.request_timeout", "60s");

fn size(gate: &Gate, cache: &str) -> f64 {
    gate.metric("tollgate_cache_size_bytes", &[("cache", cache)])
}

fn lookups(gate: &Gate, cache: &str, result: &str) -> f64 {
    gate.metric("tollgate_cache_lookups_total", &[("cache", cache), ("result", result)])
}

/// Asks with every token, many at once; how many were allowed.
async fn ask_all(gate: &Gate, tokens: Vec<String>) -> usize {
    let mut asking = tokio::task::JoinSet::new();
    for part in tokens.chunks(tokens.len().div_ceil(2)) {
        let (mut client, part) = (gate.client().await, part.to_vec());
        asking.spawn(async move {
            let mut allowed = 0;
            for tokens in part.chunks(100) {
                let requests: Vec<CheckRequest> = tokens.iter().map(|token| ask(token)).collect();
                let batch = CheckBatchRequest { requests, semantic: 0 };
                let answers = client.check_batch(batch).await.unwrap().into_inner().responses;
                allowed += answers.iter().filter(|answer| is_allowed(answer)).count();
            }
            allowed
        });
    }
    asking.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_licenses_stay_within_the_bound() {
    const BOUND: f64 = (1 << 20) as f64;
    let gate = Gate::start(&[("licenses.cache", "1 MiB"), ("policies.answer_cache", "1 MiB"), PATIENT]);
    let issuer = &gate.site().issuer;
    let mut asked = 0;
    let mut largest: f64 = 0.0;
    for round in 0..8 {
        let tokens: Vec<_> =
            (0..500).map(|number| issuer.license(&format!("license-{round}-{number}"))).collect();
        assert_eq!(ask_all(&gate, tokens).await, 500);
        asked += 500;
        let held = size(&gate, "verified_licenses");
        largest = largest.max(held);
        assert!(held <= BOUND, "{held} bytes after {asked} licenses");
        assert!(size(&gate, "policy_answers") <= (1 << 20) as f64);
    }
    assert!(largest > BOUND / 2.0, "the memory that is allowed is used: {largest}");
    assert_eq!(lookups(&gate, "verified_licenses", "miss"), f64::from(asked));
}

async fn hit(gate: &Gate, client: &mut Client, token: &str) -> bool {
    let before = lookups(gate, "verified_licenses", "hit");
    assert!(is_allowed(&client.check(ask(token)).await.unwrap().into_inner()));
    lookups(gate, "verified_licenses", "hit") > before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_tokens_do_not_make_it_forget_a_good_license() {
    let gate = Gate::start(&[("licenses.cache", "256 KiB"), ("licenses.rejected_cache", "128 KiB"), PATIENT]);
    let token = gate.site().issuer.license("license-1");
    let stranger = Issuer::new(&gate.site().issuer.name, 9);
    let mut client = gate.client().await;
    assert!(!hit(&gate, &mut client, &token).await);
    assert!(hit(&gate, &mut client, &token).await);
    let (signed, _) = token.rsplit_once('.').unwrap();
    for round in 0..3 {
        // Of a stranger, and with a signature that is not of these claims.
        let forged = (0..1000).map(|number| {
            let forged = stranger.license(&format!("forged-{round}-{number}"));
            if number % 2 == 0 { forged } else { format!("{signed}.{}", forged.rsplit_once('.').unwrap().1) }
        });
        assert_eq!(ask_all(&gate, forged.collect()).await, 0);
        assert!(hit(&gate, &mut client, &token).await, "the good license was forgotten");
        let rejected = size(&gate, "rejected_tokens");
        assert!(rejected > 0.0 && rejected <= f64::from(128 << 10), "{rejected}");
    }
    let held = size(&gate, "verified_licenses");
    assert!(held < 10_000.0, "forged tokens take the place of licenses: {held} bytes");
    // The same forgery again and again is verified once.
    let again = stranger.license("forged-again");
    assert_eq!(ask_all(&gate, vec![again; 50]).await, 0);
    assert!(lookups(&gate, "rejected_tokens", "hit") >= 49.0);
}
