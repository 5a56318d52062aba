//! Where the gate listens: the section `listeners`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, HumanDuration};

/// Where the gate listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listeners {
    /// gRPC: decisions, health, reflection. Needs `tcp` or `unix`.
    pub decisions: Listener,
    /// gRPC: administration of licenses.
    pub administration: Administration,
    /// gRPC: state for gates with `state.store: hub`. Off unless `tcp` or `unix` is set.
    pub hub: HubListener,
    /// HTTP: health, metrics, key sets, AuthZEN. With `tcp: null` and no `unix` it is off.
    pub http: Listener,
    /// AuthZEN on the HTTP listener.
    pub authzen: Authzen,
    /// Limits of the decisions listener; `message` and `request_timeout` are those of AuthZEN too.
    pub limits: Limits,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            decisions: Listener { tcp: Some(([127, 0, 0, 1], 9191).into()), ..Listener::default() },
            administration: Administration::default(),
            hub: HubListener::default(),
            http: Listener { tcp: Some(([127, 0, 0, 1], 9193).into()), ..Listener::default() },
            authzen: Authzen::default(),
            limits: Limits::default(),
        }
    }
}

impl Listeners {
    /// Whether the HTTP listener decides, and not only tells how the gate fares.
    pub fn answers_authzen(&self) -> bool {
        self.authzen.enabled.unwrap_or(!self.http.insecure)
    }
}

/// AuthZEN on the HTTP listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Authzen {
    /// Whether it is served; `null` for yes, unless `listeners.http` is `insecure`: whoever may look at metrics
    /// shall not use up quotas.
    pub enabled: Option<bool>,
    /// Where enforcement points reach the HTTP listener, such as `https://tollgate.example`, for the metadata;
    /// `null` for what their requests name as the host.
    pub public_url: Option<String>,
}

/// One listener: TCP, a Unix socket, or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// Address and port; `null` for no TCP.
    #[schemars(
        with = "Option<String>",
        title = "socket address",
        regex(pattern = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.%a-z]+\]):[0-9]{1,5}$"),
        extend("examples" = ["127.0.0.1:9191", "[::1]:9191"])
    )]
    pub tcp: Option<SocketAddr>,
    /// Path of a Unix socket; `null` for none.
    pub unix: Option<PathBuf>,
    /// TLS on the TCP address; `null` for none.
    pub tls: Option<Tls>,
    /// Lets the TCP address be other than loopback without TLS.
    pub insecure: bool,
}

/// The listener for those who administer the gate. It is served only to callers that the gate knows:
/// over `unix`, to whoever may open the socket's file; over `tcp`, only where `tokens` or `operators` say who.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Administration {
    /// Address and port; `null` for no TCP. Nothing listens there without `tokens` or `operators`.
    #[schemars(
        with = "Option<String>",
        title = "socket address",
        regex(pattern = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.%a-z]+\]):[0-9]{1,5}$"),
        extend("examples" = ["127.0.0.1:9192", "[::1]:9192"])
    )]
    pub tcp: Option<SocketAddr>,
    /// Path of a Unix socket; `null` for none. Whoever may open it may do everything, as `unix:UID`.
    pub unix: Option<PathBuf>,
    /// TLS on the TCP address; `null` for none.
    pub tls: Option<Tls>,
    /// Lets the TCP address be other than loopback without TLS.
    pub insecure: bool,
    /// A file of bearer tokens: a list of `{name, scope, token}`, each token of at least 32 characters;
    /// read again when it changes.
    pub tokens: Option<PathBuf>,
    /// Who is let in by a client certificate; needs `tls.client_ca`.
    pub operators: Vec<CertificateOperator>,
}

impl Default for Administration {
    fn default() -> Self {
        Self {
            tcp: Some(([127, 0, 0, 1], 9192).into()),
            unix: None,
            tls: None,
            insecure: false,
            tokens: None,
            operators: Vec::new(),
        }
    }
}

impl Administration {
    /// The listener: without TCP where nobody could be told apart there.
    pub fn listener(&self) -> Listener {
        let guarded = self.tokens.is_some() || !self.operators.is_empty();
        Listener {
            tcp: self.tcp.filter(|_| guarded),
            unix: self.unix.clone(),
            tls: self.tls.clone(),
            insecure: self.insecure,
        }
    }
}

/// Somebody who shows a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateOperator {
    /// A DNS name or URI among the certificate's alternative names, such as `spiffe://example.org/ci`.
    #[schemars(length(min = 1))]
    pub subject: String,
    /// What it may do.
    pub scope: Scope,
}

/// The listener for gates that keep their state in this one, which then is a hub: any gate with a state of its
/// own may be. Whoever is served here is trusted with registered licenses, quotas, usage and the decision log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HubListener {
    /// Address and port, such as `127.0.0.1:9194`; `null` for no TCP. Needs `tls` with `client_ca`, or `insecure`.
    #[schemars(
        with = "Option<String>",
        title = "socket address",
        regex(pattern = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.%a-z]+\]):[0-9]{1,5}$"),
        extend("examples" = ["127.0.0.1:9194", "[::1]:9194"])
    )]
    pub tcp: Option<SocketAddr>,
    /// Path of a Unix socket; `null` for none. Whoever may open it has the scope `gate`.
    pub unix: Option<PathBuf>,
    /// TLS on the TCP address; `null` for none.
    pub tls: Option<Tls>,
    /// Serves everybody who reaches the TCP address where no client certificate is asked for, and everybody with
    /// the scope `operate`: only for where something else protects it.
    pub insecure: bool,
    /// Who is let in by a client certificate.
    pub members: Vec<Member>,
}

impl HubListener {
    /// The listener.
    pub fn listener(&self) -> Listener {
        Listener { tcp: self.tcp, unix: self.unix.clone(), tls: self.tls.clone(), insecure: self.insecure }
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.tcp.is_some() || self.unix.is_some()
    }

    /// Whether everybody who comes over TCP shows a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
}

/// A gate, or several, that may use this one as its hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// A DNS name or URI among the certificate's alternative names, such as `spiffe://example.org/sidecar`.
    #[schemars(length(min = 1))]
    pub subject: String,
    /// What it may do.
    pub scope: MemberScope,
}

/// What a member of a hub may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberScope {
    /// What checks need: be fed, read licenses by their ids, take quota, hand in usage and records.
    Gate,
    /// All of it, so that the gate can be administered: also register, revoke, suspend, accept, list, read usage.
    Operate,
}

/// What somebody may do, as far as no policy says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look.
    Read,
    /// Look, and change.
    Operate,
}

impl Scope {
    /// The name in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// TLS of one listener. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// Certificates of the authorities whose clients are let in, PEM. With it, every client
    /// must present a certificate.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// Limits of the decisions listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest message accepted: at least 32 KiB.
    pub message: ByteSize,
    /// Requests decided at once on one connection; more wait.
    #[schemars(range(min = 1))]
    pub concurrent_requests_per_connection: u32,
    /// Connections open at once; more wait to be accepted.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// The most time given to a request, whatever deadline its caller set.
    pub request_timeout: HumanDuration,
    /// An idle connection is asked whether it lives after this time.
    pub keepalive_interval: HumanDuration,
    /// A connection that does not answer within this time is closed.
    pub keepalive_timeout: HumanDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: ByteSize::mib(4),
            concurrent_requests_per_connection: 1000,
            connections: 10_000,
            request_timeout: HumanDuration::seconds(10),
            keepalive_interval: HumanDuration::seconds(30),
            keepalive_timeout: HumanDuration::seconds(10),
        }
    }
}
