//! How licenses stand: VALID, SUSPENDED or REVOKED (the words of OAuth Token Status List), for one
//! license or for all of a key, an assignee or an issuer.
//!
//! Refuses to bring back what was revoked: only a suspension can be lifted.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It may be used.
    Valid,
    /// It may not be used until it is reinstated.
    Suspended,
    /// It may never be used again.
    Revoked,
}

impl Status {
    /// The name in answers, records and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Suspended => "SUSPENDED",
            Self::Revoked => "REVOKED",
        }
    }

    /// The status of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Valid, Self::Suspended, Self::Revoked].into_iter().find(|status| status.as_str() == name)
    }

    /// The statuses from which this one can be reached; from itself nothing changes.
    pub fn reached_from(self) -> &'static [Self] {
        match self {
            Self::Valid => &[Self::Suspended],
            Self::Suspended => &[Self::Valid],
            Self::Revoked => &[Self::Valid, Self::Suspended],
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is revoked or suspended. Everything belongs to an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Whose licenses.
    pub issuer: String,
    /// Which of them.
    pub which: Which,
}

/// Which licenses of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Which {
    /// All of them.
    All,
    /// The one of this `jti`, registered or not.
    License(String),
    /// Those signed with the key of this `kid`.
    Key(String),
    /// Those granted to this organization.
    Assignee(String),
}

impl Which {
    /// The name of the kind, in stores and records.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "issuer",
            Self::License(_) => "license",
            Self::Key(_) => "key",
            Self::Assignee(_) => "assignee",
        }
    }

    /// The id within the issuer; empty for all.
    pub fn id(&self) -> &str {
        match self {
            Self::All => "",
            Self::License(id) | Self::Key(id) | Self::Assignee(id) => id,
        }
    }

    /// What [`Which::kind`] and [`Which::id`] were taken from.
    pub fn of(kind: &str, id: &str) -> Option<Self> {
        match kind {
            "issuer" => Some(Self::All),
            "license" => Some(Self::License(id.to_owned())),
            "key" => Some(Self::Key(id.to_owned())),
            "assignee" => Some(Self::Assignee(id.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::All => write!(f, "all licenses of `{}`", self.issuer),
            which => write!(f, "{} `{}` of `{}`", which.kind(), which.id(), self.issuer),
        }
    }
}

/// How a target stands, since when, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it is about.
    pub target: Target,
    /// How it stands.
    pub status: Status,
    /// Why, in the words of whoever changed it.
    pub reason: String,
    /// Who changed it.
    pub actor: String,
    /// When.
    pub since: Timestamp,
    /// The place of the change in the order of all changes of its store; 0 before it was stored.
    pub revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_revoked() {
        for to in [Status::Valid, Status::Suspended] {
            assert!(!to.reached_from().contains(&Status::Revoked));
        }
        assert_eq!(Status::Revoked.reached_from(), [Status::Valid, Status::Suspended]);
    }

    #[test]
    fn names_lead_back() {
        for status in [Status::Valid, Status::Suspended, Status::Revoked] {
            assert_eq!(Status::named(status.as_str()), Some(status));
        }
        for which in
            [Which::All, Which::License("l".into()), Which::Key("k".into()), Which::Assignee("a".into())]
        {
            assert_eq!(Which::of(which.kind(), which.id()), Some(which));
        }
    }
}
