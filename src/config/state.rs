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
    /// The hubs of `store: hub`.
    pub hub: Option<Hubs>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            store: StoreKind::Embedded,
            max_staleness: HumanDuration::seconds(30),
            max_clock_skew: HumanDuration::seconds(5),
            embedded: Embedded::default(),
            postgres: None,
            hub: None,
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
    /// In another gate that has a hub listener. This gate needs no disk and no database, and may start
    /// before its hub: it is not ready, and denies with `STATE_STALE`, until a hub has answered.
    Hub,
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
    /// The authorities that may vouch for the server's certificate, PEM, read again for each connection; absent: the
    /// system's. Hosts other than loopback and Unix sockets are spoken to over TLS, unless the URL says `sslmode=disable`.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Connections open at once. One listens for changes; where there are more than two, another reads them.
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

/// The hubs of a gate that keeps nothing itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hubs {
    /// The hubs, as `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`, all over one state. One of them is used
    /// until it fails, then another; which one is first differs from gate to gate.
    #[schemars(length(min = 1))]
    pub addresses: Vec<String>,
    /// The authorities that may vouch for the hubs' certificates, PEM; absent: the system's. This file and the
    /// next two are read again for each connection.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The certificate to show to hubs, PEM; one of its names is a member's (`listeners.hub.members`).
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The most time given to one call, whichever hubs it takes; shorter than `listeners.limits.request_timeout`.
    #[serde(default = "Hubs::default_timeout")]
    pub timeout: HumanDuration,
    /// Lets `http` addresses be other than loopback.
    #[serde(default)]
    pub insecure: bool,
}

impl Hubs {
    fn default_timeout() -> HumanDuration {
        HumanDuration::seconds(3)
    }
}
