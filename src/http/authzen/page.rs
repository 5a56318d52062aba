//! Pages of a search: where one ends and the next goes on.
//!
//! The gate keeps nothing between them: a token tells the place, and for which question, policies and
//! size of page it is one. Refuses a token of another.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::members::{Members, count, object, text};
use crate::decision::{Sought, Span};
use crate::domain::{CheckRequest, LicenseRef};
use crate::http::malformed::Malformed;

/// The results of a page whose size nobody chose.
const DEFAULT_LIMIT: usize = 100;
/// The most results of a page.
const MAX_LIMIT: usize = 1_000;

/// What a caller says of the page.
#[derive(Default)]
pub(super) struct Wanted {
    token: Option<String>,
    limit: Option<usize>,
}

impl Wanted {
    pub(super) fn read(mut members: Members) -> Result<Self, Malformed> {
        members.take("properties", object)?;
        Ok(Self { token: members.take("token", text)?, limit: members.take("limit", count)? })
    }
}

/// A name for the question of a search and the policies that answer it.
pub(super) struct Conditions([u8; 16]);

impl Conditions {
    pub(super) fn of(question: &CheckRequest, sought: Sought, policy_revision: &str) -> Self {
        let license = match &question.license {
            LicenseRef::Missing => ("", ""),
            LicenseRef::Token(token) => ("token", token.as_str()),
            LicenseRef::Id(id) => ("id", id.as_str()),
        };
        let sought = format!("{sought:?}");
        let all = serde_json::json!([question, license, sought, policy_revision]).to_string();
        let [name, _] = halves(Sha256::digest(all).into());
        Self(name)
    }

    /// The candidates of the page that is wanted.
    pub(super) fn open(&self, wanted: &Wanted) -> Result<Span, Malformed> {
        let limit = wanted.limit.map(|limit| limit.min(MAX_LIMIT));
        let Some(token) = wanted.token.as_deref() else {
            return Ok(Span { from: 0, limit: limit.unwrap_or(DEFAULT_LIMIT) });
        };
        let Some((span, conditions)) = decode(token) else {
            return Err(Malformed::at("token", "must be the `next_token` of the page before"));
        };
        if conditions != self.0 {
            let words =
                "is of another search, or policies or catalog have changed since; begin anew without it";
            return Err(Malformed::at("token", words));
        }
        if limit.is_some_and(|limit| limit != span.limit) {
            return Err(Malformed::at("limit", "must be that of the page before, or absent"));
        }
        Ok(span)
    }

    /// The token of the page that begins at `from`.
    pub(super) fn token(&self, from: usize, limit: usize) -> String {
        let numbers = [from, limit].map(|number| (number as u64).to_be_bytes());
        URL_SAFE_NO_PAD.encode([numbers.concat().as_slice(), &self.0].concat())
    }
}

fn decode(token: &str) -> Option<(Span, [u8; 16])> {
    let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
    let [numbers, conditions] = halves(bytes);
    let numbers = u128::from_be_bytes(numbers);
    let from = usize::try_from(numbers >> 64).ok()?;
    let limit = usize::try_from(numbers & u128::from(u64::MAX)).ok()?;
    (limit <= MAX_LIMIT).then_some((Span { from, limit }, conditions))
}

fn halves(bytes: [u8; 32]) -> [[u8; 16]; 2] {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    for (to, from) in first.iter_mut().chain(&mut second).zip(bytes) {
        *to = from;
    }
    [first, second]
}
