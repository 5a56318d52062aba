//! Quotas as the client of Envoy is told of them: the `RateLimit` fields of `draft-ietf-httpapi-ratelimit-headers`,
//! and `Retry-After`.
//!
//! The fields have whole numbers only: refuses to tell of a quota whose limit is a fraction, or too large for them.

use std::fmt::Write;

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;

use super::header;
use crate::domain::Amount;
use crate::domain::outcome::QuotaState;
use crate::domain::time::Timestamp;
use crate::quota::REQUESTS;

/// The most quotas told of, and the longest name of one, in bytes.
const MAX_QUOTAS: usize = 16;
const MAX_NAME: usize = 128;

/// The largest integer of a structured field (RFC 9651).
const MAX_INTEGER: i128 = 999_999_999_999_999;

/// What the client is told of its quotas.
pub(in crate::grpc) fn fields(quotas: &[QuotaState], now: Timestamp) -> Vec<HeaderValueOption> {
    let policy = policy(quotas).map(|text| header("ratelimit-policy", text));
    let remaining = remaining(quotas, now).map(|text| header("ratelimit", text));
    policy.into_iter().chain(remaining).collect()
}

/// `RateLimit-Policy`, where there is a quota to tell of: how much, in which time, of what.
fn policy(quotas: &[QuotaState]) -> Option<String> {
    list(quotas, |item, quota, limit| {
        // Writing to a string cannot fail.
        let _ = write!(item, ";q={limit}");
        if let Some(end) = quota.resets_at {
            let _ = write!(item, ";w={}", seconds(quota.began_at, end));
        }
        if quota.metric != REQUESTS {
            let _ = write!(item, ";qu={}", string(&quota.metric));
        }
    })
}

/// `RateLimit`: what is left, and for how long.
fn remaining(quotas: &[QuotaState], now: Timestamp) -> Option<String> {
    list(quotas, |item, quota, _| {
        let _ = write!(item, ";r={}", quota.remaining.millionths() / Amount::ONE.millionths());
        if let Some(end) = quota.resets_at {
            let _ = write!(item, ";t={}", seconds(now, end));
        }
    })
}

/// The quotas that leave nothing for one request more.
pub(super) fn exceeded(quotas: &[QuotaState]) -> Vec<&QuotaState> {
    let least = |quota: &QuotaState| {
        if quota.metric == REQUESTS { Amount::ONE } else { Amount::of_millionths(1) }
    };
    quotas.iter().filter(|quota| quota.remaining < least(quota)).collect()
}

/// `Retry-After`: when the last of the quotas that were exceeded begins anew. None where one never does.
pub(super) fn retry_after(quotas: &[QuotaState], now: Timestamp) -> Option<i64> {
    let ends: Option<Vec<Timestamp>> = exceeded(quotas).iter().map(|quota| quota.resets_at).collect();
    Some(seconds(now, ends?.into_iter().max()?).max(1))
}

fn list(quotas: &[QuotaState], write: impl Fn(&mut String, &QuotaState, i128)) -> Option<String> {
    let items = quotas.iter().filter_map(|quota| {
        let limit = quota.limit.millionths();
        let (whole, rest) = (limit / Amount::ONE.millionths(), limit % Amount::ONE.millionths());
        if rest != 0 || whole > MAX_INTEGER || quota.id.len() > MAX_NAME || quota.metric.len() > MAX_NAME {
            return None;
        }
        let mut item = string(&quota.id);
        write(&mut item, quota, whole);
        Some(item)
    });
    let items: Vec<String> = items.take(MAX_QUOTAS).collect();
    (!items.is_empty()).then(|| items.join(", "))
}

/// A string of a structured field: what it cannot hold is percent-encoded.
fn string(text: &str) -> String {
    let encoded = super::visible::text(text);
    format!("\"{}\"", encoded.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whole seconds, not fewer than there are.
fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    let span = to.duration_since(from);
    (span.as_secs() + i64::from(span.subsec_nanos() > 0)).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        format!("2026-03-02T{time}Z").parse().unwrap()
    }

    fn quota(id: &str, metric: &str, limit: f64, remaining: f64, resets_at: Option<&str>) -> QuotaState {
        QuotaState {
            id: id.to_owned(),
            metric: metric.to_owned(),
            limit: Amount::limit(limit).unwrap(),
            remaining: Amount::limit(remaining).unwrap(),
            began_at: at("09:00:00"),
            resets_at: resets_at.map(at),
        }
    }

    #[test]
    fn tells_what_is_left_as_the_draft_has_it() {
        let quotas = [
            quota("hourly", "requests", 100.0, 99.0, Some("10:00:00")),
            quota("t\"\\é", "rows", 5.0, 0.5, None),
            quota("privacy", "epsilon", 1.5, 1.0, None),
            quota("huge", "bytes", 1e15, 1.0, None),
        ];
        assert_eq!(policy(&quotas).unwrap(), r#""hourly";q=100;w=3600, "t\"\\%C3%A9";q=5;qu="rows""#);
        assert_eq!(remaining(&quotas, at("09:59:00.5")).unwrap(), r#""hourly";r=99;t=60, "t\"\\%C3%A9";r=0"#);
        assert_eq!(policy(&quotas[2..]), None);
        assert_eq!(remaining(&[], at("09:00:00")), None);
        let many: Vec<QuotaState> = (0..100).map(|n| quota(&n.to_string(), "rows", 1.0, 1.0, None)).collect();
        assert_eq!(policy(&many).unwrap().split(", ").count(), MAX_QUOTAS);
    }

    #[test]
    fn one_comes_back_when_the_last_begins_anew() {
        let now = at("09:59:59.9");
        let hour = quota("hour", "requests", 5.0, 0.0, Some("10:00:00"));
        let day = quota("day", "rows", 5.0, 0.0, Some("23:00:00"));
        let free = quota("free", "requests", 5.0, 1.0, Some("23:30:00"));
        let total = quota("total", "requests", 5.0, 0.5, None);
        assert_eq!(retry_after(&[hour.clone(), free.clone()], now), Some(1));
        assert_eq!(retry_after(&[hour.clone(), day], now), Some(46_801));
        assert_eq!(retry_after(&[hour, total], now), None);
        assert_eq!(retry_after(&[free], now), None);
    }
}
