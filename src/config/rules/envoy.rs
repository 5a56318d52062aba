//! Rules of the section `envoy`: who may say what about a request.

use http::{HeaderName, Method};

use super::{Objection, object};
use crate::config::envoy::{Envoy, Field, Route, Source};

/// The rules of `envoy`.
pub(super) fn rules(envoy: &Envoy, objections: &mut Vec<Objection>) {
    let proven =
        [("subject", &envoy.subject), ("organization", &envoy.organization), ("roles", &envoy.roles)];
    for (name, sources) in proven {
        if sources.iter().any(|source| matches!(source, Source::Header { .. })) {
            let words = "has a `header`, which any client can send; use a `claim`, an `extension`, `principal: spiffe`, \
                         or a `trusted_header` that Envoy takes away from clients";
            object(objections, format!("envoy.{name}"), words);
        }
    }
    let others = [
        ("license", &envoy.license),
        ("license_id", &envoy.license_id),
        ("action", &envoy.action),
        ("dataset", &envoy.dataset),
        ("purpose", &envoy.purpose),
        ("region", &envoy.region),
        ("project", &envoy.project),
        ("environment", &envoy.environment),
    ];
    for (name, sources) in proven.into_iter().chain(others) {
        names(&format!("envoy.{name}"), sources, objections);
    }
    for (name, sources) in &envoy.context {
        names(&format!("envoy.context.{name}"), sources, objections);
    }
    for (index, route) in envoy.routes.iter().enumerate() {
        check_route(&format!("envoy.routes.{index}"), route, objections);
    }
    for domain in envoy.trust_domains.iter().filter(|domain| !is_trust_domain(domain)) {
        let words =
            format!("`{domain}` is not a trust domain; write for example `example.org`, without `spiffe://`");
        object(objections, "envoy.trust_domains", words);
    }
}

/// Names that can be looked up.
fn names(key: &str, sources: &[Source], objections: &mut Vec<Objection>) {
    for source in sources {
        let header = match source {
            Source::Header { name, .. } | Source::TrustedHeader(name) => name,
            Source::Extension(name) | Source::Claim(name) if name.is_empty() => {
                object(objections, key, "has a source without a name");
                continue;
            }
            Source::Metadata(at) if at.namespace.is_empty() || at.path.is_empty() => {
                object(objections, key, "has a `metadata` source without `namespace` or `path`");
                continue;
            }
            _ => continue,
        };
        if header.parse::<HeaderName>().is_err() {
            object(objections, key, format!("`{header}` is not the name of a header"));
        }
        if let Source::Header { scheme: Some(scheme), .. } = source
            && (scheme.is_empty() || scheme.contains([' ', ',']))
        {
            object(objections, key, format!("`{scheme}` is not a scheme; write for example `License`"));
        }
    }
}

fn check_route(key: &str, route: &Route, objections: &mut Vec<Objection>) {
    for method in &route.methods {
        // Envoy compares methods as they stand, and so do gates.
        let is_method =
            method.parse::<Method>().is_ok() && !method.contains(|c: char| c.is_ascii_lowercase());
        if !is_method {
            object(
                objections,
                format!("{key}.methods"),
                format!("`{method}` is not a method, such as `GET`"),
            );
        } else if method == "CONNECT" {
            object(objections, format!("{key}.methods"), "`CONNECT` is always denied");
        }
    }
    let taken: Vec<Field> = route.path.fields().collect();
    for field in taken.into_iter().filter(|field| route.constant(*field).is_some()) {
        let words = format!("is said twice; `path` takes `{}` from the request", field.as_str());
        object(objections, format!("{key}.{}", field.as_str()), words);
    }
}

/// As the SPIFFE standard has it.
fn is_trust_domain(name: &str) -> bool {
    let is_part = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    (1..=255).contains(&name.len()) && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::config::Config;

    fn keys(change: impl FnOnce(&mut Envoy)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config.envoy);
        check(&config).into_iter().map(|(key, _)| key).collect()
    }

    fn header(name: &str, scheme: Option<&str>) -> Vec<Source> {
        vec![Source::Header { name: name.to_owned(), scheme: scheme.map(str::to_owned) }]
    }

    #[test]
    fn clients_do_not_say_who_they_are() {
        assert_eq!(keys(|envoy| envoy.subject = header("x-user", None)), ["envoy.subject"]);
        assert_eq!(keys(|envoy| envoy.organization = header("x-org", None)), ["envoy.organization"]);
        assert_eq!(keys(|envoy| envoy.roles = header("x-roles", None)), ["envoy.roles"]);
        assert!(keys(|envoy| envoy.purpose = header("x-purpose", None)).is_empty());
        assert!(keys(|envoy| envoy.subject = vec![Source::TrustedHeader("x-user".to_owned())]).is_empty());
    }

    #[test]
    fn names_can_be_looked_up() {
        assert_eq!(keys(|envoy| envoy.license = header("x license", None)), ["envoy.license"]);
        assert_eq!(keys(|envoy| envoy.license = header("a", Some("two words"))), ["envoy.license"]);
        assert_eq!(keys(|envoy| envoy.region = vec![Source::Extension(String::new())]), ["envoy.region"]);
        let context = |envoy: &mut Envoy| {
            envoy.context.insert("client".to_owned(), header("", None));
        };
        assert_eq!(keys(context), ["envoy.context.client"]);
        for (domain, is_right) in [("example.org", true), ("spiffe://a", false), ("A", false), ("", false)] {
            let found = keys(|envoy| envoy.trust_domains = vec![domain.to_owned()]);
            assert_eq!(found.is_empty(), is_right, "{domain}");
        }
    }

    #[test]
    fn a_route_says_each_field_once() {
        let route = |text: &str| serde_saphyr::from_str::<Route>(text).unwrap();
        let twice = route("{path: '/{dataset...}', dataset: sales}");
        assert_eq!(keys(|envoy| envoy.routes = vec![twice]), ["envoy.routes.0.dataset"]);
        for method in ["get", "CONNECT", "A B"] {
            let wrong = route(&format!("{{path: /, methods: ['{method}']}}"));
            assert_eq!(keys(|envoy| envoy.routes = vec![wrong]), ["envoy.routes.0.methods"], "{method}");
        }
    }
}
