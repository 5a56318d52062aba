//! The configuration: plain data, each field documented; `docs/configuration.md` is rendered from it.
//!
//! Refuses unknown keys, and to open or read anything that it names.

pub mod duration;
pub mod envoy;
pub mod listeners;
pub mod reference;
pub mod rules;
pub mod size;
pub mod sources;
pub mod state;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use duration::HumanDuration;
pub use envoy::Envoy;
pub use listeners::{
    Administration, Authzen, CertificateOperator, HubListener, Limits, Listener, Listeners, Member,
    MemberScope, Scope, Tls,
};
pub use size::ByteSize;
pub use sources::load;
pub use state::{Embedded, Hubs, Postgres, State, StoreKind};

/// The whole of `tollgate.yaml`. Relative paths in it start at the folder of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this gate is.
    pub gate: Gate,
    /// Where it listens, and how much it takes on.
    pub listeners: Listeners,
    /// Whom it trusts to sign licenses, and how it remembers what it verified.
    pub licenses: Licenses,
    /// What it decides by.
    pub policies: Policies,
    /// How a request that Envoy asks about (`ext_authz`, on the decisions listener) becomes a check. Each field has a
    /// list of sources; the first that yields something wins. [Envoy](envoy.md#sources) lists the kinds of source.
    pub envoy: Envoy,
    /// What it must not forget.
    pub state: State,
    /// Where its decisions are recorded.
    pub audit: Audit,
    /// What it tells about itself.
    pub telemetry: Telemetry,
    /// How it stops.
    pub shutdown: Shutdown,
}

/// Who this gate is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// The gate's name in records, metrics and traces.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The names under which licenses may address this gate in `aud`. A license that names
    /// an audience is refused by a gate that has none.
    pub audiences: Vec<String>,
    /// A dry run: everything is decided, recorded and measured, and everything is allowed. It protects nothing. The same
    /// as `serve --dry-run-all`.
    pub dry_run_all: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self { name: "tollgate".to_owned(), audiences: Vec::new(), dry_run_all: false }
    }
}

/// Whom the gate trusts to sign licenses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Licenses {
    /// A folder of JWKS files (`*.json`), one per issuer; read again when it changes.
    pub keys: PathBuf,
    /// How far in the future `nbf` and `iat` may lie, for clocks that differ. `exp` has no leeway.
    pub leeway: HumanDuration,
    /// Memory for licenses that were verified.
    pub cache: ByteSize,
    /// Memory for tokens that were refused.
    pub rejected_cache: ByteSize,
    /// Memory for registered licenses that were asked for by their id.
    pub registered_cache: ByteSize,
}

impl Default for Licenses {
    fn default() -> Self {
        Self {
            keys: PathBuf::from("keys"),
            leeway: HumanDuration::seconds(5),
            cache: ByteSize::mib(64),
            rejected_cache: ByteSize::mib(4),
            registered_cache: ByteSize::mib(32),
        }
    }
}

/// What the gate decides by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// A folder of the operator's own: `*.cedar` at any depth are added to the built-in
    /// policies; `schema.cedarschema`, `attributes.cedarschema`, `purposes.json`, `regions.json`
    /// and a folder `base` in it replace the built-in ones. Read again when it changes.
    pub directory: Option<PathBuf>,
    /// The catalog of datasets, in Cedar's entity JSON; read again when it changes.
    pub catalog: Option<PathBuf>,
    /// Memory for answers that policies gave to questions asked before.
    pub answer_cache: ByteSize,
}

impl Default for Policies {
    fn default() -> Self {
        Self { directory: None, catalog: None, answer_cache: ByteSize::mib(32) }
    }
}

/// Where decisions are recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// When a check is answered; `durable` needs `file` or `hub`.
    pub mode: AuditMode,
    /// Writes records as JSON lines to standard output. There must be this, `file` or `hub`.
    pub stdout: bool,
    /// Writes records as JSON lines to a file; `null` for none.
    pub file: Option<AuditFile>,
    /// Hands records to the hub of `state.store: hub`, which writes them to its own log under this gate's name. A
    /// record whose acknowledgement was lost is sent again: the hub's log may have it twice, with one `decision_id`.
    pub hub: bool,
    /// Records that may wait to be written; a check waits when the queue is full.
    #[schemars(range(min = 1))]
    pub queue: u32,
    /// What happens to a check whose record cannot be written.
    pub on_failure: AuditFailure,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            mode: AuditMode::Queued,
            stdout: true,
            file: None,
            hub: false,
            queue: 16_384,
            on_failure: AuditFailure::Deny,
        }
    }
}

/// When a check is answered, as seen from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditMode {
    /// When the record has its place in the queue.
    Queued,
    /// When the record is on disk; with `hub`, when the hub has it, on disk if its own mode is `durable`.
    Durable,
}

/// What happens to a check whose record cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditFailure {
    /// It is denied with `AUDIT_UNAVAILABLE`.
    Deny,
    /// It is answered all the same; the loss is counted and logged.
    Allow,
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFile {
    /// The file that is written; older ones stand beside it with a number behind the name.
    pub path: PathBuf,
    /// The size at which a new file is begun: at least 64 KiB.
    #[serde(default = "AuditFile::default_rotate_at")]
    pub rotate_at: ByteSize,
    /// How many older files are kept.
    #[serde(default = "AuditFile::default_keep")]
    pub keep: u32,
}

impl AuditFile {
    fn default_rotate_at() -> ByteSize {
        ByteSize::mib(100)
    }

    fn default_keep() -> u32 {
        10
    }
}

/// What the gate tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Logs, on standard error.
    pub logs: Logs,
    /// Traces, over OTLP.
    pub traces: Traces,
    /// Metrics, over OTLP; Prometheus reads them from the HTTP listener in any case.
    pub metrics: Metrics,
}

/// Logs, on standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// How a log line looks.
    pub format: LogFormat,
    /// What is logged: a level, or directives such as `info,tollgate::policy=debug`.
    pub level: String,
}

impl Default for Logs {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info".to_owned() }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// Traces, over OTLP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// The OTLP/gRPC endpoint, such as `http://127.0.0.1:4317`; `null` for no traces.
    pub otlp_endpoint: Option<String>,
    /// The share of traces begun here that are recorded, 0 to 1; a caller's own choice is followed.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 0.01 }
    }
}

/// Metrics, over OTLP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// The OTLP/gRPC endpoint; `null` for none.
    pub otlp_endpoint: Option<String>,
    /// How often metrics are sent over OTLP.
    pub interval: HumanDuration,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { otlp_endpoint: None, interval: HumanDuration::seconds(30) }
    }
}

/// How the gate stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long health says NOT_SERVING before listeners close, so that load balancers notice.
    pub notice: HumanDuration,
    /// How long requests in flight may take after that; then records are written out, within as much
    /// time again, or five seconds if that is more.
    pub grace: HumanDuration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { notice: HumanDuration::seconds(2), grace: HumanDuration::seconds(20) }
    }
}
