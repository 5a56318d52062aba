//! Quotas, claims and usage, as messages and back. Amounts are whole millionths in decimal: they add up
//! exactly.

use uuid::Uuid;

use super::{MAX_ROWS, Malformed, malformed, moment, moment_if_any, name, text, timestamp, uuid};
use crate::domain::amount::Amount;
use crate::proto::v1 as wire;
use crate::store::{Claim, Take, Taken, UsageBatch, UsageFilter, UsageKey, UsageRow};

fn decimal(amount: Amount) -> String {
    amount.millionths().to_string()
}

/// An amount.
///
/// # Errors
/// When it is not a whole number of millionths in decimal.
pub fn read_amount(field: &'static str, text: &str) -> Result<Amount, Malformed> {
    text.parse().map(Amount::of_millionths).map_err(|_| malformed(field, "is not a whole number"))
}

/// The question for a part of a quota.
pub fn take(take: &Take) -> wire::TakeRequest {
    wire::TakeRequest {
        counter: take.counter.clone(),
        window: timestamp(take.window),
        ends: timestamp(take.ends),
        lease: take.lease.to_string(),
        gate: take.gate.clone(),
        want: decimal(take.want),
        limit: decimal(take.limit),
        least: decimal(take.least),
    }
}

/// What is to be taken.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_take(message: wire::TakeRequest) -> Result<Take, Malformed> {
    Ok(Take {
        counter: text("counter", message.counter)?,
        window: moment("window", message.window)?,
        ends: moment("ends", message.ends)?,
        lease: uuid("lease", &message.lease)?,
        gate: name("gate", message.gate)?,
        want: read_amount("want", &message.want)?,
        least: read_amount("least", &message.least)?,
        limit: read_amount("limit", &message.limit)?,
    })
}

/// What was taken, as a message.
pub fn taken(taken: Taken) -> wire::TakeResponse {
    wire::TakeResponse { granted: decimal(taken.granted), remaining: decimal(taken.remaining) }
}

/// What was taken.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_taken(message: &wire::TakeResponse) -> Result<Taken, Malformed> {
    Ok(Taken {
        granted: read_amount("granted", &message.granted)?,
        remaining: read_amount("remaining", &message.remaining)?,
    })
}

/// The message that leaves a lease so much.
pub fn keep(lease: Uuid, kept: Amount) -> wire::KeepRequest {
    wire::KeepRequest { lease: lease.to_string(), kept: decimal(kept) }
}

/// A lease, and what it is to have.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_keep(message: &wire::KeepRequest) -> Result<(Uuid, Amount), Malformed> {
    Ok((uuid("lease", &message.lease)?, read_amount("kept", &message.kept)?))
}

/// The message that ends a lease.
pub fn give_back(lease: Uuid, amount: Amount) -> wire::GiveBackRequest {
    wire::GiveBackRequest { lease: lease.to_string(), amount: decimal(amount) }
}

/// A lease, and what is left of it.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn lease(message: &wire::GiveBackRequest) -> Result<(Uuid, Amount), Malformed> {
    Ok((uuid("lease", &message.lease)?, read_amount("amount", &message.amount)?))
}

/// A claim, as a message.
pub fn claim(claim: &Claim) -> wire::ClaimRequest {
    wire::ClaimRequest {
        request: claim.request.clone(),
        question: claim.question.to_vec(),
        expires: timestamp(claim.expires),
    }
}

/// A claim.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_claim(message: wire::ClaimRequest) -> Result<Claim, Malformed> {
    Ok(Claim {
        request: text("request", message.request)?,
        question: read_question(&message.question)?,
        expires: moment("expires", message.expires)?,
    })
}

/// The hash of a question.
///
/// # Errors
/// When it has not 32 bytes.
pub fn read_question(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| malformed("question", "does not have 32 bytes"))
}

fn row(key: &UsageKey, amount: Amount) -> wire::UsageRow {
    wire::UsageRow {
        issuer: key.issuer.clone(),
        license_id: key.license.clone(),
        assignee: key.assignee.clone(),
        user: key.user.clone(),
        project: key.project.clone(),
        metric: key.metric.clone(),
        hour: timestamp(key.hour),
        amount: decimal(amount),
    }
}

fn read_key(row: wire::UsageRow) -> Result<UsageKey, Malformed> {
    Ok(UsageKey {
        issuer: name("rows.issuer", row.issuer)?,
        license: name("rows.license_id", row.license_id)?,
        assignee: name("rows.assignee", row.assignee)?,
        user: name("rows.user", row.user)?,
        project: name("rows.project", row.project)?,
        metric: name("rows.metric", row.metric)?,
        hour: moment("rows.hour", row.hour)?,
    })
}

/// Rows, as messages.
pub fn usage_rows(rows: &[UsageRow]) -> Vec<wire::UsageRow> {
    rows.iter().map(|one| row(&one.key, one.amount)).collect()
}

/// Rows.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_usage_rows(rows: Vec<wire::UsageRow>) -> Result<Vec<UsageRow>, Malformed> {
    if rows.len() > usize::try_from(MAX_ROWS).unwrap_or(usize::MAX) {
        return Err(malformed("rows", "are more than 1,000"));
    }
    let read = |row: wire::UsageRow| {
        let amount = read_amount("rows.amount", &row.amount)?;
        Ok(UsageRow { key: read_key(row)?, amount })
    };
    rows.into_iter().map(read).collect()
}

/// A batch, as a message.
pub fn add_usage(batch: &UsageBatch) -> wire::AddUsageRequest {
    wire::AddUsageRequest {
        gate: batch.gate.clone(),
        boot: batch.boot.to_string(),
        sequence: batch.sequence,
        rows: usage_rows(&batch.rows),
    }
}

/// A batch.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_add_usage(message: wire::AddUsageRequest) -> Result<UsageBatch, Malformed> {
    Ok(UsageBatch {
        gate: name("gate", message.gate)?,
        boot: uuid("boot", &message.boot)?,
        sequence: message.sequence,
        rows: read_usage_rows(message.rows)?,
    })
}

/// The question for a page of usage.
pub fn usage(filter: &UsageFilter, after: Option<&UsageKey>, limit: u32) -> wire::UsageRequest {
    let filter = filter.clone();
    wire::UsageRequest {
        issuer: filter.issuer,
        license_id: filter.license,
        assignee: filter.assignee,
        user: filter.user,
        project: filter.project,
        metric: filter.metric,
        from: filter.from.and_then(timestamp),
        until: filter.until.and_then(timestamp),
        after: after.map(|key| row(key, Amount::ZERO)),
        limit,
    }
}

/// Which usage, after which row, and how many.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_usage(message: wire::UsageRequest) -> Result<(UsageFilter, Option<UsageKey>, u32), Malformed> {
    let named = |field, text: Option<String>| text.map(|text| name(field, text)).transpose();
    let filter = UsageFilter {
        issuer: named("issuer", message.issuer)?,
        license: named("license_id", message.license_id)?,
        assignee: named("assignee", message.assignee)?,
        user: named("user", message.user)?,
        project: named("project", message.project)?,
        metric: named("metric", message.metric)?,
        from: moment_if_any("from", message.from)?,
        until: moment_if_any("until", message.until)?,
    };
    let after = message.after.map(read_key).transpose()?;
    Ok((filter, after, message.limit.min(MAX_ROWS)))
}
