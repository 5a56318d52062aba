//! A license as people write it before it is signed: the claims, with times in words and what a
//! key tells left out. Refuses what a gate would refuse.

use jiff::{RoundMode, Span, Timestamp, TimestampRound, Unit, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claims::{Audience, Claims, Confirmation};
use crate::domain::Terms;
use crate::domain::terms::Iso8601Duration;

/// The content of `terms.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The organization to which the license is granted (`sub`).
    #[schemars(length(min = 1, max = 256))]
    pub assignee: String,
    /// The license's id (`jti`); absent: a new one is made.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub id: Option<String>,
    /// The first moment of its validity, such as `2026-01-01T00:00:00Z`; absent: now.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub not_before: Option<Timestamp>,
    /// The first moment after its validity.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub expires: Option<Timestamp>,
    /// How long it is valid, such as `P1Y`, instead of `expires`.
    #[serde(default)]
    pub valid_for: Option<Iso8601Duration>,
    /// The gates that may honour it; absent: any.
    #[serde(default)]
    pub audience: Option<Audience>,
    /// Who must present it; absent: anyone.
    #[serde(default)]
    pub holder: Option<Confirmation>,
    /// What it grants.
    pub terms: Terms,
}

/// Why a draft is not a license.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// Its end is not said, or said twice.
    #[error(
        "one of `expires` and `valid_for` is expected: `expires: 2027-01-01T00:00:00Z` or `valid_for: P1Y`"
    )]
    End,
    /// Its end cannot be reckoned.
    #[error("the validity cannot be reckoned: {0}")]
    Reckoning(String),
}

impl Draft {
    /// The claims of the license, issued by `issuer` at `now`. Licenses count whole seconds: a
    /// fraction in what was written makes the validity shorter, never longer.
    ///
    /// # Errors
    /// When the end of its validity is not said or cannot be reckoned.
    pub fn claims(
        self,
        issuer: &str,
        new_id: impl FnOnce() -> String,
        now: Timestamp,
    ) -> Result<Claims, DraftError> {
        let now = whole_second(now, RoundMode::Floor)?;
        let nbf = whole_second(self.not_before.unwrap_or(now), RoundMode::Ceil)?;
        let exp = match (self.expires, self.valid_for) {
            (Some(expires), None) => expires,
            (None, Some(Iso8601Duration(span))) => after(nbf, span)?,
            _ => return Err(DraftError::End),
        };
        let exp = whole_second(exp, RoundMode::Floor)?;
        Ok(Claims {
            iss: issuer.to_owned(),
            sub: self.assignee,
            jti: self.id.unwrap_or_else(new_id),
            iat: now,
            nbf,
            exp,
            aud: self.audience,
            cnf: self.holder,
            terms: self.terms,
        })
    }
}

fn whole_second(time: Timestamp, mode: RoundMode) -> Result<Timestamp, DraftError> {
    let round = TimestampRound::new().smallest(Unit::Second).mode(mode);
    time.round(round).map_err(|error| DraftError::Reckoning(error.to_string()))
}

/// Calendar units are reckoned in UTC.
fn after(begin: Timestamp, span: Span) -> Result<Timestamp, DraftError> {
    let end = begin.to_zoned(TimeZone::UTC).checked_add(span);
    end.map(|end| end.timestamp()).map_err(|error| DraftError::Reckoning(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_a_second_shorten_the_validity() {
        let draft = serde_json::json!({
            "assignee": "acme",
            "not_before": "2026-01-01T00:00:00.25Z",
            "expires": "2026-12-31T23:59:59.75Z",
            "terms": { "datasets": ["*"], "actions": ["read"], "purposes": ["Marketing"] },
        });
        let draft: Draft = serde_json::from_value(draft).unwrap();
        let now = Timestamp::new(1_780_272_000, 500_000_000).unwrap();
        let claims = draft.claims("i", || "l".to_owned(), now).unwrap();
        assert_eq!(claims.nbf.to_string(), "2026-01-01T00:00:01Z");
        assert_eq!(claims.exp.to_string(), "2026-12-31T23:59:59Z");
        assert_eq!(claims.iat.to_string(), "2026-06-01T00:00:00Z");
        let written = serde_json::to_vec(&claims).unwrap();
        assert_eq!(Claims::parse(&written), Ok(claims), "a gate reads what was drafted");
    }
}
