//! Where a gate keeps what it must not forget: the section `state`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HumanDuration;

/// What the gate must not forget: registered licenses, revocations, quotas, usage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Where it is kept.
    pub store: StoreKind,
    /// A gate that has not heard from its state for so long denies with `STATE_STALE`.
    pub max_staleness: HumanDuration,
    /// A gate whose clock is further than this from that of its state, or behind a time that was
    /// seen before, denies with `CLOCK_SUSPECT`.
    pub max_clock_skew: HumanDuration,
    /// The file of `store: embedded`.
    pub embedded: Embedded,
    /// The database of `store: postgres`.
    pub postgres: Option<Postgres>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            store: StoreKind::Embedded,
            max_staleness: HumanDuration::seconds(30),
            max_clock_skew: HumanDuration::seconds(5),
            embedded: Embedded::default(),
            postgres: None,
        }
    }
}

/// Where state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In a file, for one gate.
    Embedded,
    /// In a PostgreSQL database, for many gates.
    Postgres,
}

/// The file of an embedded store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Embedded {
    /// The file, made where there is none. One gate owns it.
    pub path: PathBuf,
}

impl Default for Embedded {
    fn default() -> Self {
        Self { path: PathBuf::from("state.redb") }
    }
}

/// A PostgreSQL database, of version 14 or later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// A connection string or URL of libpq, such as `postgres://tollgate@db1,db2/tollgate`, without the
    /// password. With several hosts, the one that takes writes is used.
    pub url: String,
    /// A file that holds the password, read again for each connection; absent: that of the environment
    /// variable `PGPASSWORD`, if any.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The authorities that may vouch for the server's certificate, PEM; absent: the system's. Hosts
    /// other than loopback and Unix sockets are spoken to over TLS, unless the URL says `sslmode=disable`.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Connections open at once.
    #[serde(default = "Postgres::default_connections")]
    #[schemars(range(min = 2, max = 1000))]
    pub connections: u32,
    /// The most time given to one statement; shorter than `listeners.limits.request_timeout`.
    #[serde(default = "Postgres::default_statement_timeout")]
    pub statement_timeout: HumanDuration,
}

impl Postgres {
    fn default_connections() -> u32 {
        8
    }

    fn default_statement_timeout() -> HumanDuration {
        HumanDuration::seconds(3)
    }
}
