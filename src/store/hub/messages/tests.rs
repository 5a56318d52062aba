//! What is said is what is heard, and nothing that is too large or has no meaning is taken.

use super::*;
use crate::domain::amount::Amount;
use crate::store::{Take, UsageBatch, UsageKey, UsageRow};

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 7).unwrap()
}

#[test]
fn a_feed_is_heard_as_it_is_said() {
    let stands = |which, status, revision| Standing {
        target: Target { issuer: "i".into(), which },
        status,
        reason: "r".into(),
        actor: "a".into(),
        since: at(-5),
        revision,
    };
    let said = Feed {
        epoch: Uuid::from_u128(7),
        revision: u64::MAX,
        records: 3,
        time: at(9),
        age: SignedDuration::new(1, 999_999_999),
        standings: vec![
            stands(Which::All, Status::Revoked, 1),
            stands(Which::License(String::new()), Status::Suspended, 2),
            stands(Which::Key("k".into()), Status::Valid, 3),
            stands(Which::Assignee("a".into()), Status::Revoked, 4),
        ],
    };
    assert_eq!(read_feed(feed(&said)), Ok(said.clone()));
    // What does not say how old it is, is not fresh.
    let ageless = wire::FeedResponse { age: None, ..feed(&said) };
    assert_eq!(read_feed(ageless).unwrap_err().field, "age");
    let from_tomorrow = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    assert_eq!(read_feed(wire::FeedResponse { age: from_tomorrow, ..feed(&said) }).unwrap_err().field, "age");
}

#[test]
fn amounts_lose_nothing_on_the_way() {
    for millionths in [i128::MIN, -1, 0, 1, i128::MAX] {
        let amount = Amount::of_millionths(millionths);
        let said = Take {
            counter: "c".into(),
            window: Timestamp::MIN,
            ends: Timestamp::MAX,
            lease: Uuid::new_v4(),
            gate: "g".into(),
            want: amount,
            least: amount,
            limit: amount,
        };
        assert_eq!(read_take(take(&said)), Ok(said));
    }
    for text in ["", "1.5", "1e3", "x", "340282366920938463463374607431768211456"] {
        assert_eq!(read_amount("want", text).unwrap_err().field, "want", "{text}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let key = |user: &str| UsageKey {
        issuer: "i".into(),
        license: "l".into(),
        assignee: "a".into(),
        user: user.to_owned(),
        project: String::new(),
        metric: "m".into(),
        hour: at(0),
    };
    let batch = |rows: usize, user: &str| {
        let row = UsageRow { key: key(user), amount: Amount::ONE };
        add_usage(&UsageBatch { gate: "g".into(), boot: Uuid::nil(), sequence: 1, rows: vec![row; rows] })
    };
    assert_eq!(read_add_usage(batch(1_000, &"u".repeat(256))).unwrap().rows.len(), 1_000);
    assert_eq!(read_add_usage(batch(1_001, "u")).unwrap_err().field, "rows");
    assert_eq!(read_add_usage(batch(1, &"u".repeat(257))).unwrap_err().field, "rows.user");
    assert_eq!(read_question(&[0; 31]).unwrap_err().field, "question");
    assert_eq!(text("counter", "c".repeat(MAX_TEXT + 1)).unwrap_err().field, "counter");
}
