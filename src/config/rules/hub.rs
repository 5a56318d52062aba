//! Rules about hubs: the listener of one, and the addresses of those that a gate uses.

use std::net::IpAddr;

use http::Uri;

use super::{Objection, not_zero, object};
use crate::config::{Config, Hubs, StoreKind};

/// The rules of `listeners.hub`.
pub(super) fn listener(config: &Config, objections: &mut Vec<Objection>) {
    let hub = &config.listeners.hub;
    let asks = hub.asks_for_certificates();
    if hub.is_on() && config.state.store == StoreKind::Hub {
        object(
            objections,
            "listeners.hub",
            "needs a state of the gate's own; this gate has `state.store: hub`",
        );
    }
    if hub.tcp.is_some() && !asks && !hub.insecure {
        object(
            objections,
            "listeners.hub.tcp",
            "needs `listeners.hub.tls` with `client_ca`, so that members can be told, or \
             `listeners.hub.insecure: true` if something else protects it",
        );
    }
    match (hub.members.is_empty(), asks) {
        (true, true) => object(
            objections,
            "listeners.hub.members",
            "is empty, so nobody would be served; name the certificates of gates, each with a `scope`",
        ),
        (false, false) => object(
            objections,
            "listeners.hub.members",
            "names certificates, and none is asked for; set `listeners.hub.tls` with `client_ca`",
        ),
        _ => {}
    }
}

/// The rules of `state.hub`, and of what needs it.
pub(super) fn client(config: &Config, objections: &mut Vec<Objection>) {
    let is_used = config.state.store == StoreKind::Hub;
    match &config.state.hub {
        Some(hubs) if is_used => addresses(hubs, config, objections),
        Some(_) => object(objections, "state.hub", "is not used; set `state.store: hub`"),
        None if is_used => {
            object(objections, "state.hub", "is missing; `state.store: hub` needs its `addresses`");
        }
        None => {}
    }
    if config.audit.hub && !is_used {
        object(objections, "audit.hub", "needs `state.store: hub`; there is no hub to hand records to");
    }
}

fn addresses(hubs: &Hubs, config: &Config, objections: &mut Vec<Objection>) {
    if hubs.addresses.is_empty() {
        object(objections, "state.hub.addresses", "is empty; name one hub or more");
    }
    for address in &hubs.addresses {
        if let Err(problem) = check_address(address, hubs.insecure) {
            object(objections, "state.hub.addresses", format!("`{address}` {problem}"));
        }
    }
    let secure = hubs.addresses.iter().any(|address| address.starts_with("https:"));
    let files = [("ca", &hubs.ca), ("certificate", &hubs.certificate), ("key", &hubs.key)];
    for (key, _) in files.into_iter().filter(|(_, file)| file.is_some() && !secure) {
        object(objections, format!("state.hub.{key}"), "is not used; no address begins with `https:`");
    }
    match (&hubs.certificate, &hubs.key) {
        (Some(_), None) => object(objections, "state.hub.key", "is missing; `certificate` needs it"),
        (None, Some(_)) => {
            object(objections, "state.hub.certificate", "is missing; `key` is of no use alone");
        }
        _ => {}
    }
    not_zero(objections, "state.hub.timeout", hubs.timeout);
    if hubs.timeout >= config.listeners.limits.request_timeout {
        let words = "is not below `listeners.limits.request_timeout`; a check would end before its call";
        object(objections, "state.hub.timeout", words);
    }
}

fn check_address(address: &str, insecure: bool) -> Result<(), &'static str> {
    const RIGHT: &str = "is not an address; write `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`";
    if let Some(path) = address.strip_prefix("unix:") {
        return if path.is_empty() { Err(RIGHT) } else { Ok(()) };
    }
    let uri: Uri = address.parse().map_err(|_| RIGHT)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(RIGHT)?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(RIGHT);
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if insecure || is_loopback(host) => Ok(()),
        Some("http") => Err("is neither loopback nor TLS; write `https://HOST:PORT`, or set \
                             `state.hub.insecure: true` if something else protects it"),
        _ => Err(RIGHT),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::config::{Member, MemberScope, Tls};

    fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        check(&config).into_iter().map(|(key, _)| key).collect()
    }

    fn hubs(addresses: &[&str]) -> Hubs {
        Hubs {
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            ca: None,
            certificate: None,
            key: None,
            timeout: "3s".parse().unwrap(),
            insecure: false,
        }
    }

    fn sidecar(hubs: Hubs) -> impl FnOnce(&mut Config) {
        |config| {
            config.state.store = StoreKind::Hub;
            config.state.hub = Some(hubs);
        }
    }

    #[test]
    fn members_are_told_by_certificates_or_nobody_is_told_apart() {
        let tcp = Some(([127, 0, 0, 1], 9194).into());
        let member = || vec![Member { subject: "sidecar".into(), scope: MemberScope::Gate }];
        let tls = |ca: Option<&str>| {
            Some(Tls { certificate: "c".into(), key: "k".into(), client_ca: ca.map(Into::into) })
        };
        assert_eq!(keys(|c| c.listeners.hub.tcp = tcp), ["listeners.hub.tcp"]);
        let listener = |ca, insecure, members: Vec<Member>| {
            keys(|c| {
                c.listeners.hub.tcp = tcp;
                c.listeners.hub.tls = tls(ca);
                c.listeners.hub.insecure = insecure;
                c.listeners.hub.members = members;
            })
        };
        assert!(listener(Some("ca"), false, member()).is_empty());
        assert!(listener(None, true, vec![]).is_empty());
        assert_eq!(listener(Some("ca"), false, vec![]), ["listeners.hub.members"]);
        assert_eq!(listener(None, true, member()), ["listeners.hub.members"]);
        assert!(keys(|c| c.listeners.hub.unix = Some("hub.sock".into())).is_empty());
    }

    #[test]
    fn a_sidecar_names_hubs_that_it_can_trust() {
        let good =
            ["https://hub-1:9194", "http://127.0.0.1:9194", "http://[::1]:1", "http://localhost", "unix:/s"];
        assert!(keys(sidecar(hubs(&good))).is_empty());
        let bad = ["http://hub-1:9194", "hub-1:9194", "https://", "unix:", "https://hub/path", "ftp://hub"];
        for address in bad {
            assert_eq!(keys(sidecar(hubs(&[address]))), ["state.hub.addresses"], "{address}");
        }
        assert!(keys(sidecar(Hubs { insecure: true, ..hubs(&["http://hub-1:9194"]) })).is_empty());
        assert_eq!(keys(sidecar(hubs(&[]))), ["state.hub.addresses"]);
        let late = Hubs { timeout: "10s".parse().unwrap(), ..hubs(&["https://hub-1"]) };
        assert_eq!(keys(sidecar(late)), ["state.hub.timeout"]);
        let half = Hubs { key: Some("k".into()), ..hubs(&["https://hub-1"]) };
        assert_eq!(keys(sidecar(half)), ["state.hub.certificate"]);
        assert_eq!(keys(sidecar(Hubs { ca: Some("ca".into()), ..hubs(&["unix:s"]) })), ["state.hub.ca"]);
    }

    #[test]
    fn what_needs_a_hub_says_so() {
        assert_eq!(keys(|c| c.state.store = StoreKind::Hub), ["state.hub"]);
        assert_eq!(keys(|c| c.state.hub = Some(hubs(&["unix:s"]))), ["state.hub"]);
        assert_eq!(keys(|c| c.audit.hub = true), ["audit.hub"]);
        let hub_of_a_hub = |c: &mut Config| {
            sidecar(hubs(&["unix:s"]))(c);
            c.listeners.hub.unix = Some("hub.sock".into());
        };
        assert_eq!(keys(hub_of_a_hub), ["listeners.hub"]);
        let only_to_the_hub = |c: &mut Config| {
            sidecar(hubs(&["unix:s"]))(c);
            c.audit.stdout = false;
            c.audit.hub = true;
            c.audit.mode = crate::config::AuditMode::Durable;
        };
        assert!(keys(only_to_the_hub).is_empty());
    }
}
