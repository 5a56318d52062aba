//! A license is in force from `nbf` and `iat`, less the leeway, up to `exp`, without any.

use std::cell::Cell;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tollgate::domain::Code;
use tollgate::license::Claims;

use crate::gate::{Gate, codes, signed};
use crate::samples;

/// Where a moment lies, in nanoseconds from another: on it, just beside it, around it, anywhere.
fn offset() -> impl Strategy<Value = i128> {
    let second = 1_000_000_000;
    prop_oneof![
        select(vec![0, 1, -1, second, -second, second - 1, 1 - second]),
        (-20 * second..20 * second),
        (-400_000_000 * second..400_000_000 * second),
    ]
}

#[test]
fn in_force_from_the_beginning_to_before_the_end() {
    let gates = [0_i64, 5, 90].map(|leeway| (leeway, Gate::with_leeway(&format!("{leeway}s"))));
    let seen: [Cell<u32>; 3] = Default::default();
    let base = 1_780_272_000_i64;
    let times = (0..100_000_i64, 0..100_000_i64, prop_oneof![1..30_i64, 1..200_000_i64]);
    let config = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let strategy = (times, select(vec![0, 1, 2]), offset(), 0..4_usize);
    let outcome = TestRunner::new(config).run(&strategy, |((nbf, iat, length), which, offset, edge)| {
        let (leeway, gate) = &gates[which];
        let second = |second| Timestamp::from_second(base + second).unwrap();
        let claims =
            Claims { nbf: second(nbf), iat: second(iat), exp: second(nbf + length), ..samples::claims() };
        let edges = [
            claims.nbf,
            claims.iat,
            claims.exp,
            claims.nbf.max(claims.iat) - SignedDuration::from_secs(*leeway),
        ];
        let now = edges[edge].as_nanosecond() + offset;
        let lead = i128::from(*leeway) * 1_000_000_000;
        let begins = claims.nbf.as_nanosecond().max(claims.iat.as_nanosecond());
        let expected = if now >= claims.exp.as_nanosecond() {
            vec![Code::Expired]
        } else if now < begins - lead {
            vec![Code::NotYetValid]
        } else {
            vec![]
        };
        let decision =
            gate.decide(&signed(&claims), &samples::request(), Timestamp::from_nanosecond(now).unwrap());
        prop_assert_eq!(&codes(&decision), &expected);
        let count = &seen[match expected.first() {
            None => 0,
            Some(Code::Expired) => 1,
            Some(_) => 2,
        }];
        count.set(count.get() + 1);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(seen.iter().all(|count| count.get() > 60), "{seen:?} in force, over, not begun");
}
