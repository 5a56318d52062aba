//! Rules of the configuration that join several keys, or that a schema cannot say.
//!
//! Refuses to touch the file system or the network: a rule sees only what is written.

mod envoy;
mod hub;

use http::Uri;
use tracing_subscriber::EnvFilter;

use super::{AuditMode, ByteSize, Config, HumanDuration, Listener, StoreKind};

/// A key, and what is wrong with its value.
pub type Objection = (String, String);

/// The largest license is 16 KiB; a message needs room for it and for the question.
const SMALLEST_MESSAGE: u64 = 32 << 10;

/// The longest name of a gate, in bytes: stores keep it.
const LONGEST_NAME: usize = 256;

/// Below this, a log would rotate faster than anyone reads it.
const SMALLEST_ROTATION: u64 = 64 << 10;

/// Every rule that the configuration breaks.
pub fn check(config: &Config) -> Vec<Objection> {
    let mut objections = Vec::new();
    names(config, &mut objections);
    listeners(config, &mut objections);
    limits(config, &mut objections);
    state(config, &mut objections);
    hub::listener(config, &mut objections);
    hub::client(config, &mut objections);
    audit(config, &mut objections);
    envoy::rules(&config.envoy, &mut objections);
    telemetry(config, &mut objections);
    objections
}

fn object(objections: &mut Vec<Objection>, key: impl Into<String>, message: impl Into<String>) {
    objections.push((key.into(), message.into()));
}

fn names(config: &Config, objections: &mut Vec<Objection>) {
    if config.gate.name.trim().is_empty() {
        object(objections, "gate.name", "is empty; records, metrics and traces need a name");
    }
    if config.gate.name.len() > LONGEST_NAME {
        object(objections, "gate.name", format!("is longer than {LONGEST_NAME} bytes"));
    }
    if config.gate.audiences.iter().any(|audience| audience.trim().is_empty()) {
        object(
            objections,
            "gate.audiences",
            "has an empty name; an audience is what licenses write in `aud`",
        );
    }
}

fn listeners(config: &Config, objections: &mut Vec<Objection>) {
    let listeners = &config.listeners;
    exposure("listeners.decisions", &listeners.decisions, objections);
    exposure("listeners.administration", &listeners.administration.listener(), objections);
    exposure("listeners.http", &listeners.http, objections);
    let administration = &listeners.administration;
    let has_authority = administration.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !administration.operators.is_empty() && !has_authority {
        object(
            objections,
            "listeners.administration.operators",
            "names certificates, and none is asked for; set `listeners.administration.tls` with `client_ca`",
        );
    }
    authzen(config, objections);
    if listeners.decisions.tcp.is_none() && listeners.decisions.unix.is_none() {
        object(objections, "listeners.decisions", "has neither `tcp` nor `unix`; nobody could ask the gate");
    }
}

fn authzen(config: &Config, objections: &mut Vec<Objection>) {
    let (http, authzen) = (&config.listeners.http, &config.listeners.authzen);
    if authzen.enabled == Some(true) && http.tcp.is_none() && http.unix.is_none() {
        let words = "is `true`, and `listeners.http` is off; give that `tcp` or `unix`";
        object(objections, "listeners.authzen.enabled", words);
    }
    if let Some(url) = authzen.public_url.as_deref().filter(|url| !is_origin(url)) {
        let words =
            format!("`{url}` is not `https://` and a host; write for example `https://tollgate.example`");
        object(objections, "listeners.authzen.public_url", words);
    }
}

/// AuthZEN's identifier of a gate: a host, and nothing behind it.
fn is_origin(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        let origin = uri.authority().map(|host| format!("https://{host}"));
        origin.as_deref() == Some(url) && !url.contains('@')
    })
}

fn exposure(key: &str, listener: &Listener, objections: &mut Vec<Objection>) {
    let Some(tcp) = listener.tcp else { return };
    if !tcp.ip().is_loopback() && listener.tls.is_none() && !listener.insecure {
        object(
            objections,
            format!("{key}.tcp"),
            format!(
                "`{tcp}` is not loopback and has no TLS; give `{key}.tls` a certificate and a key, \
                 or set `{key}.insecure: true` if something else protects it"
            ),
        );
    }
}

fn limits(config: &Config, objections: &mut Vec<Objection>) {
    let limits = &config.listeners.limits;
    at_least(objections, "listeners.limits.message", limits.message, SMALLEST_MESSAGE);
    let times = [
        ("listeners.limits.request_timeout", limits.request_timeout),
        ("listeners.limits.keepalive_interval", limits.keepalive_interval),
        ("listeners.limits.keepalive_timeout", limits.keepalive_timeout),
        ("telemetry.metrics.interval", config.telemetry.metrics.interval),
    ];
    for (key, time) in times {
        not_zero(objections, key, time);
    }
}

fn not_zero(objections: &mut Vec<Objection>, key: &str, time: HumanDuration) {
    if time.get().is_zero() {
        object(objections, key, "is zero; write for example `10s`");
    }
}

fn at_least(objections: &mut Vec<Objection>, key: &str, size: ByteSize, least: u64) {
    if size.bytes() < least {
        object(objections, key, format!("`{size}` is too small: at least {} KiB", least >> 10));
    }
}

fn state(config: &Config, objections: &mut Vec<Objection>) {
    let state = &config.state;
    not_zero(objections, "state.max_staleness", state.max_staleness);
    if state.max_staleness < HumanDuration::seconds(1) {
        object(objections, "state.max_staleness", "is below `1s`; the state is read twice a second");
    }
    match (&state.store, &state.postgres) {
        (StoreKind::Embedded | StoreKind::Hub, None) => {}
        (StoreKind::Embedded | StoreKind::Hub, Some(_)) => {
            object(objections, "state.postgres", "is not used; set `state.store: postgres`");
        }
        (StoreKind::Postgres, None) => {
            object(objections, "state.postgres", "is missing; `state.store: postgres` needs its `url`");
        }
        (StoreKind::Postgres, Some(postgres)) => {
            not_zero(objections, "state.postgres.statement_timeout", postgres.statement_timeout);
            if postgres.statement_timeout >= config.listeners.limits.request_timeout {
                object(
                    objections,
                    "state.postgres.statement_timeout",
                    "is not below `listeners.limits.request_timeout`; a check would end before its statement",
                );
            }
        }
    }
    if state.embedded.path.file_name().is_none() {
        let path = state.embedded.path.display();
        object(objections, "state.embedded.path", format!("`{path}` names no file"));
    }
}

fn audit(config: &Config, objections: &mut Vec<Objection>) {
    let audit = &config.audit;
    if !audit.stdout && audit.file.is_none() && !audit.hub {
        object(
            objections,
            "audit",
            "has neither `stdout: true` nor a `file` nor `hub: true`; every decision must be recorded somewhere",
        );
    } else if audit.mode == AuditMode::Durable && audit.file.is_none() && !audit.hub {
        object(
            objections,
            "audit.mode",
            "`durable` needs `audit.file` or `audit.hub`; standard output gives no word that a record is on disk",
        );
    }
    if let Some(file) = &audit.file {
        at_least(objections, "audit.file.rotate_at", file.rotate_at, SMALLEST_ROTATION);
        if file.path.file_name().is_none() {
            object(objections, "audit.file.path", format!("`{}` names no file", file.path.display()));
        }
    }
}

fn telemetry(config: &Config, objections: &mut Vec<Objection>) {
    let telemetry = &config.telemetry;
    let level = &telemetry.logs.level;
    if let Err(error) = EnvFilter::try_new(level) {
        object(
            objections,
            "telemetry.logs.level",
            format!("`{level}` is not a level or a list of directives ({error}); write for example `info`"),
        );
    }
    let endpoints = [
        ("telemetry.traces.otlp_endpoint", &telemetry.traces.otlp_endpoint),
        ("telemetry.metrics.otlp_endpoint", &telemetry.metrics.otlp_endpoint),
    ];
    for (key, endpoint) in endpoints {
        if let Some(endpoint) = endpoint.as_deref().filter(|endpoint| !is_http(endpoint)) {
            object(
                objections,
                key,
                format!(
                    "`{endpoint}` is not an `http` or `https` URL; write for example `http://127.0.0.1:4317`"
                ),
            );
        }
    }
}

fn is_http(endpoint: &str) -> bool {
    endpoint.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::super::{AuditFile, Tls};
    use super::*;

    fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        check(&config).into_iter().map(|(key, _)| key).collect()
    }

    fn file(rotate_at: ByteSize) -> Option<AuditFile> {
        Some(AuditFile { path: "audit.jsonl".into(), rotate_at, keep: 1 })
    }

    #[test]
    fn the_defaults_break_no_rule() {
        assert_eq!(check(&Config::default()), []);
    }

    #[test]
    fn an_open_listener_needs_tls_or_a_word() {
        let open = Some(([0, 0, 0, 0], 9191).into());
        assert_eq!(keys(|c| c.listeners.decisions.tcp = open), ["listeners.decisions.tcp"]);
        assert_eq!(keys(|c| c.listeners.http.tcp = open), ["listeners.http.tcp"]);
        let v6 = Some((std::net::Ipv6Addr::LOCALHOST, 1).into());
        assert!(keys(|c| c.listeners.decisions.tcp = v6).is_empty());
        let insecure = |c: &mut Config| {
            c.listeners.decisions.tcp = open;
            c.listeners.decisions.insecure = true;
        };
        assert!(keys(insecure).is_empty());
        let tls = |c: &mut Config| {
            c.listeners.decisions.tcp = open;
            c.listeners.decisions.tls =
                Some(Tls { certificate: "c".into(), key: "k".into(), client_ca: None });
        };
        assert!(keys(tls).is_empty());
    }

    #[test]
    fn decisions_must_be_asked_somewhere_but_http_may_be_off() {
        assert_eq!(keys(|c| c.listeners.decisions.tcp = None), ["listeners.decisions"]);
        let unix = |c: &mut Config| {
            c.listeners.decisions.tcp = None;
            c.listeners.decisions.unix = Some("gate.sock".into());
        };
        assert!(keys(unix).is_empty());
        assert!(keys(|c| c.listeners.http.tcp = None).is_empty());
    }

    #[test]
    fn every_decision_is_recorded_and_durable_means_a_file() {
        assert_eq!(keys(|c| c.audit.stdout = false), ["audit"]);
        assert_eq!(keys(|c| c.audit.mode = AuditMode::Durable), ["audit.mode"]);
        let durable = |c: &mut Config| {
            c.audit.mode = AuditMode::Durable;
            c.audit.file = file(ByteSize::mib(1));
        };
        assert!(keys(durable).is_empty());
        assert_eq!(keys(|c| c.audit.file = file("63 KiB".parse().unwrap())), ["audit.file.rotate_at"]);
    }

    #[test]
    fn authzen_needs_a_listener_and_a_name_that_clients_can_use() {
        assert!(keys(|c| c.listeners.authzen.enabled = Some(true)).is_empty());
        let off = |c: &mut Config| {
            c.listeners.http.tcp = None;
            c.listeners.authzen.enabled = Some(true);
        };
        assert_eq!(keys(off), ["listeners.authzen.enabled"]);
        for url in ["https://tollgate.example", "https://tollgate.example:8443", "https://[::1]:1"] {
            assert!(keys(|c| c.listeners.authzen.public_url = Some(url.into())).is_empty(), "{url}");
        }
        for url in [
            "",
            "tollgate.example",
            "http://a.example",
            "https://a.example/",
            "https://a.example/b",
            "https://a.example?b",
            "https://u@a.example",
            "https://",
            "HTTPS://a.example",
        ] {
            let found = keys(|c| c.listeners.authzen.public_url = Some(url.into()));
            assert_eq!(found, ["listeners.authzen.public_url"], "{url}");
        }
    }

    #[test]
    fn who_may_look_at_metrics_does_not_ask_unless_told() {
        let mut listeners = Config::default().listeners;
        assert!(listeners.answers_authzen());
        listeners.http.insecure = true;
        assert!(!listeners.answers_authzen());
        listeners.authzen.enabled = Some(true);
        assert!(listeners.answers_authzen());
        listeners.http.insecure = false;
        listeners.authzen.enabled = Some(false);
        assert!(!listeners.answers_authzen());
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let zero = HumanDuration::seconds(0);
        assert_eq!(keys(|c| c.listeners.limits.request_timeout = zero), ["listeners.limits.request_timeout"]);
        assert_eq!(keys(|c| c.telemetry.metrics.interval = zero), ["telemetry.metrics.interval"]);
        assert!(keys(|c| c.shutdown.notice = zero).is_empty());
        assert_eq!(keys(|c| c.listeners.limits.message = ByteSize::mib(0)), ["listeners.limits.message"]);
        assert_eq!(keys(|c| c.gate.name = " ".into()), ["gate.name"]);
        assert_eq!(keys(|c| c.gate.audiences = vec![String::new()]), ["gate.audiences"]);
        assert_eq!(keys(|c| c.telemetry.logs.level = "a=b=c".into()), ["telemetry.logs.level"]);
        for endpoint in ["127.0.0.1:4317", "ftp://host", "http://", "", "grpc://x:1"] {
            let found = keys(|c| c.telemetry.traces.otlp_endpoint = Some(endpoint.into()));
            assert_eq!(found, ["telemetry.traces.otlp_endpoint"], "{endpoint}");
        }
        assert!(keys(|c| c.telemetry.metrics.otlp_endpoint = Some("https://host:4317".into())).is_empty());
    }
}
