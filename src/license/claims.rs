//! The claims of a license, typed (RFC 7519, RFC 7800).
//!
//! Refuses unknown members, at the top and under `terms`, empty names and validity that
//! ends before it begins.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Terms;
use crate::domain::object::{self, Object};

/// Everything that a license says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The assigner: who grants.
    pub iss: String,
    /// The assignee: the organization to which it is granted.
    pub sub: String,
    /// The license's id, unique for its issuer.
    pub jti: String,
    /// When it was signed.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub iat: Timestamp,
    /// The first moment of its validity.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub nbf: Timestamp,
    /// The first moment after its validity.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub exp: Timestamp,
    /// The gates that may honour it; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// Who must present it; absent: anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// What it grants.
    #[serde(deserialize_with = "object::one")]
    pub terms: Terms,
}

/// One name or several (RFC 7519, section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(title = "name, or list of names")]
pub enum Audience {
    /// One gate.
    One(String),
    /// Any of these gates.
    Several(BTreeSet<String>),
}

impl Audience {
    /// The names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::Several(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

/// The holder to whom a license is bound: exactly one kind of proof (RFC 7800).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "one of `spiffe_id`, `x5t#S256`, `jkt`")]
pub enum Confirmation {
    /// The workload with this SPIFFE id.
    #[serde(rename = "spiffe_id")]
    SpiffeId(String),
    /// Whoever holds the key of this certificate: base64url SHA-256 (RFC 8705, section 3.1).
    #[serde(rename = "x5t#S256")]
    CertificateThumbprint(String),
    /// Whoever holds this key: its JWK thumbprint (RFC 9449, section 6.1).
    #[serde(rename = "jkt")]
    JwkThumbprint(String),
}

/// Why claims are refused although they are well-formed JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// They are not of the shape.
    #[error("{0}")]
    Shape(String),
    /// A member is not known.
    #[error("{0}")]
    Unsupported(String),
}

impl Claims {
    /// Decodes the payload of a license.
    ///
    /// # Errors
    /// [`ClaimsError::Unsupported`] for a member or a value that this gate does not know;
    /// [`ClaimsError::Shape`] for everything else.
    pub fn parse(payload: &[u8]) -> Result<Self, ClaimsError> {
        let mut json = serde_json::Deserializer::from_slice(payload);
        let Object(claims): Object<Self> = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            let located = format!("{path}: {message}");
            // serde's words for a name that is not in the type: a member, or one of a closed list.
            let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
            if unknown { ClaimsError::Unsupported(located) } else { ClaimsError::Shape(located) }
        })?;
        json.end().map_err(|error| ClaimsError::Shape(error.to_string()))?;
        claims.check().map(|()| claims)
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// [`ClaimsError::Shape`], naming the claim.
    pub fn check(&self) -> Result<(), ClaimsError> {
        let shape = |message: String| Err(ClaimsError::Shape(message));
        for (name, value) in [("iss", &self.iss), ("sub", &self.sub), ("jti", &self.jti)] {
            if value.is_empty() || value.len() > 256 {
                return shape(format!("{name}: it has {} bytes; 1 to 256 are expected", value.len()));
            }
        }
        if self.exp <= self.nbf {
            return shape("exp: it is not after `nbf`".to_owned());
        }
        let bound = match &self.cnf {
            None => None,
            Some(Confirmation::SpiffeId(id)) => Some(("spiffe_id", id)),
            Some(Confirmation::CertificateThumbprint(hash)) => Some(("x5t#S256", hash)),
            Some(Confirmation::JwkThumbprint(hash)) => Some(("jkt", hash)),
        };
        if let Some((kind, _)) = bound.filter(|(_, value)| value.is_empty()) {
            return shape(format!("cnf.{kind}: it is empty; a license bound to nobody is bound to anybody"));
        }
        self.check_terms().or_else(shape)
    }

    fn check_terms(&self) -> Result<(), String> {
        let terms = &self.terms;
        let optional = |set: &Option<BTreeSet<String>>| set.as_ref().is_some_and(BTreeSet::is_empty);
        let empty = [
            ("datasets", terms.datasets.is_empty()),
            ("actions", terms.actions.is_empty()),
            ("purposes", terms.purposes.is_empty()),
            ("users", optional(&terms.users)),
            ("roles", optional(&terms.roles)),
            ("projects", optional(&terms.projects)),
            ("regions", optional(&terms.regions)),
            ("environments", optional(&terms.environments)),
        ];
        if let Some((name, _)) = empty.iter().find(|(_, empty)| *empty) {
            return Err(format!("terms.{name}: it is empty; name at least one"));
        }
        let mut ids = BTreeSet::new();
        if let Some(duty) = terms.duties.iter().find(|duty| !ids.insert(&duty.id) || duty.id.is_empty()) {
            return Err(format!("terms.duties: the id `{}` is empty or there twice", duty.id));
        }
        let mut ids = BTreeSet::new();
        if let Some(quota) = terms.quotas.iter().find(|quota| !ids.insert(&quota.id) || quota.id.is_empty()) {
            return Err(format!("terms.quotas: the id `{}` is empty or there twice", quota.id));
        }
        if let Some(quota) =
            terms.quotas.iter().find(|quota| !(quota.limit >= 0.0 && quota.limit.is_finite()))
        {
            return Err(format!("terms.quotas: the limit of `{}` is not a number of at least 0", quota.id));
        }
        let unknown = |zone: &&String| jiff::tz::TimeZone::get(zone).is_err();
        if let Some(zone) = terms.quotas.iter().filter_map(|quota| quota.time_zone.as_ref()).find(unknown) {
            return Err(format!("terms.quotas: `{zone}` is not a time zone, such as `Europe/Berlin`"));
        }
        match &terms.anonymization {
            Some(least)
                if [least.t_closeness, least.epsilon]
                    .iter()
                    .flatten()
                    .any(|number| !(0.0..=1e6).contains(number)) =>
            {
                Err("terms.anonymization: a number is below 0 or over 1,000,000".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claims() -> Value {
        json!({
            "iss": "i", "sub": "s", "jti": "j", "iat": 1, "nbf": 1, "exp": 2,
            "terms": {
                "datasets": ["a"], "actions": ["read"], "purposes": ["p"],
                "anonymization": { "k_anonymity": 5 },
                "quotas": [{ "id": "q", "metric": "rows", "limit": 1.0, "per": "user", "window": "day" }],
                "retention": { "duration": "P1D", "then": "delete" },
                "acceptance": { "terms_hash": "h" },
                "duties": [{ "id": "d", "type": "t" }],
            },
        })
    }

    #[test]
    fn a_list_of_values_is_no_object() {
        assert!(Claims::parse(claims().to_string().as_bytes()).is_ok());
        // Each with its members in the order of the source code.
        let lists = [
            ("/terms/anonymization", json!([5, 2, 0.1, 1.0, ["suppression"], ["auditor"]])),
            ("/terms/quotas/0", json!(["q", "rows", 1.0, "user", "day", "UTC"])),
            ("/terms/retention", json!(["P1D", "delete"])),
            ("/terms/acceptance", json!(["h"])),
            ("/terms/duties/0", json!(["d", "t", {}])),
            (
                "/terms",
                json!([
                    "gold",
                    ["a"],
                    ["read"],
                    ["p"],
                    null,
                    null,
                    null,
                    null,
                    null,
                    [],
                    null,
                    [],
                    null,
                    null,
                    [],
                    null,
                    []
                ]),
            ),
            ("", json!(["i", "s", "j", 1, 1, 2, null, null, claims()["terms"]])),
        ];
        for (place, list) in lists {
            let mut claims = claims();
            *claims.pointer_mut(place).unwrap() = list;
            let refused = Claims::parse(claims.to_string().as_bytes());
            assert!(
                matches!(&refused, Err(ClaimsError::Shape(words)) if words.contains("expected an object")),
                "{place}: {refused:?}"
            );
        }
    }
}
