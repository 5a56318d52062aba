//! What Envoy says becomes the check that it means, and what means nothing is named.

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, Metadata};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{Peer, Request};
use envoy_types::pb::google::protobuf::Struct;
use proptest::prelude::*;
use serde_json::json;

use super::super::metadata::{list, object, text};
use super::*;
use crate::document::Document;

fn envoy(yaml: &str) -> Envoy {
    Document::parse("envoy.yaml", yaml).unwrap().decode().unwrap()
}

fn raw(lines: &[(&str, &[u8])]) -> Option<HeaderMap> {
    let line = |(key, value): &(&str, &[u8])| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.to_vec(),
        ..HeaderValue::default()
    };
    Some(HeaderMap { headers: lines.iter().map(line).collect() })
}

fn attributes(http: HttpRequest) -> AttributeContext {
    let request = Request { http: Some(http), ..Request::default() };
    AttributeContext { request: Some(request), ..AttributeContext::default() }
}

/// A request as Envoy tells of one that has everything.
fn full() -> AttributeContext {
    let claims = [("sub", text("ana")), ("roles", list(vec![text("lead"), text("analyst")]))];
    let payload = object(claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let verified = Struct { fields: [("jwt_payload".to_owned(), payload)].into() };
    let filter_metadata = [("envoy.filters.http.jwt_authn".to_owned(), verified)].into();
    let extensions = [
        ("organization", "acme"),
        ("action", "read"),
        ("dataset", "sales/eu"),
        ("purpose", "Marketing"),
        ("region", "FR"),
        ("project", "apollo"),
        ("environment", "enclave"),
    ];
    AttributeContext {
        source: Some(Peer { principal: "spiffe://example.org/app".to_owned(), ..Peer::default() }),
        context_extensions: extensions.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
        metadata_context: Some(Metadata { filter_metadata, ..Metadata::default() }),
        ..attributes(HttpRequest {
            id: "4711".to_owned(),
            method: "GET".to_owned(),
            path: "/v1/hr?x=1".to_owned(),
            header_map: raw(&[
                (":path", b"/v1/hr?x=1"),
                ("authorization", b"License a.b.c"),
                ("x-purpose", b"ScientificResearch"),
            ]),
            ..HttpRequest::default()
        })
    }
}

fn problems(asked: &Asked) -> Vec<&str> {
    asked.question.problems.iter().map(|reason| reason.reason_admin.as_str()).collect()
}

#[test]
fn the_defaults_read_what_envoy_is_usually_set_up_to_say() {
    let asked = read(&full(), &envoy("{trust_domains: [example.org], supported_obligations: [notify]}"));
    let expected = CheckRequest {
        request_id: "4711".to_owned(),
        license: LicenseRef::Token("a.b.c".to_owned()),
        subject: Subject {
            id: "ana".to_owned(),
            organization: "acme".to_owned(),
            roles: vec!["lead".to_owned(), "analyst".to_owned()],
        },
        action: "read".to_owned(),
        resource: Resource { id: "sales/eu".to_owned(), ..Resource::default() },
        purpose: "Marketing".to_owned(),
        region: "FR".to_owned(),
        project: "apollo".to_owned(),
        environment: "enclave".to_owned(),
        holder: Holder { spiffe_id: "spiffe://example.org/app".to_owned(), ..Holder::default() },
        supported_obligations: vec!["notify".to_owned()],
        ..CheckRequest::default()
    };
    assert_eq!(asked.question, expected);
    assert_eq!(asked.license_headers, ["authorization"]);
    assert!(!asked.is_grpc);
}

#[test]
fn the_first_source_that_yields_wins_and_a_route_wins_over_all() {
    let config = envoy(
        "{subject: [{claim: none}, {principal: spiffe}, {value: nobody}], trust_domains: [example.org], \
         purpose: [{header: x-none}, {header: X-Purpose}, {extension: purpose}], roles: [{value: 'a, b'}], \
         routes: [{path: /other}, {methods: [GET], path: '/v1/{dataset...}', action: query}], \
         context: {client: [{header: x-purpose}], roles: [{claim: roles}], none: [{claim: none}]}}",
    );
    let question = read(&full(), &config).question;
    assert_eq!(question.problems, []);
    assert_eq!(question.subject.id, "spiffe://example.org/app");
    assert_eq!(question.subject.roles, ["a", "b"]);
    assert_eq!(question.purpose, "ScientificResearch");
    assert_eq!((question.resource.id.as_str(), question.action.as_str()), ("hr", "query"));
    assert_eq!(question.region, "FR");
    let context = json!({ "client": "ScientificResearch", "roles": ["lead", "analyst"] });
    assert_eq!(Value::Object(question.context), context);
}

#[test]
fn who_is_not_known_is_nobody() {
    let question = read(&full(), &envoy("{subject: [{principal: spiffe}]}")).question;
    assert_eq!((question.subject.id.as_str(), question.holder), ("", Holder::default()));
    let question = read(&AttributeContext::default(), &envoy("{}")).question;
    assert_eq!(question.license, LicenseRef::Missing);
}

#[test]
fn what_cannot_be_read_is_named() {
    let with = |lines: &[(&str, &[u8])]| {
        attributes(HttpRequest { method: "GET".to_owned(), header_map: raw(lines), ..HttpRequest::default() })
    };
    let routes = "routes: [{methods: [GET], path: '/v1/{dataset}'}]";
    let with_path = |path: &str| with(&[(":path", path.as_bytes())]);
    let certificate = |text: &str| AttributeContext {
        source: Some(Peer { certificate: text.to_owned(), ..Peer::default() }),
        ..with(&[("a", b"b")])
    };
    let connect = HttpRequest {
        method: "CONNECT".to_owned(),
        header_map: raw(&[("a", b"b")]),
        ..HttpRequest::default()
    };
    for (attributes, config, field) in [
        (AttributeContext::default(), "{}", "headers"),
        (attributes(HttpRequest::default()), "{}", "headers"),
        (attributes(connect), "{}", "method"),
        (with(&[("authorization", b"License a"), ("authorization", b"License b")]), "{}", "license"),
        (with(&[("x", b"\xff")]), "{license: [{header: x}]}", "license"),
        (with(&[("x", b"a,b")]), "{purpose: [{header: x}, {value: Marketing}]}", "purpose"),
        (with(&[("x", b"a")]), "{subject: [{claim: roles}]}", ""),
        (full(), "{subject: [{claim: roles}]}", "subject.id"),
        (
            full(),
            "{roles: [{metadata: {namespace: envoy.filters.http.jwt_authn, path: jwt_payload}}]}",
            "subject.roles",
        ),
        (with_path("/v1/a/../b"), &format!("{{{routes}}}"), "path"),
        (with_path("/v2/a"), &format!("{{{routes}}}"), "path"),
        (with(&[(":path", b"/v1/\xff")]), &format!("{{{routes}}}"), "path"),
        (with(&[(":path", b"/v1/a"), (":path", b"/v1/b")]), &format!("{{{routes}}}"), "path"),
        (certificate("nonsense"), "{}", "holder.certificate_thumbprint"),
    ] {
        let asked = read(&attributes, &envoy(config));
        match (problems(&asked).as_slice(), field) {
            ([], "") => {}
            ([one], field) => {
                assert!(one.starts_with(&format!("{field}: ")) && !field.is_empty(), "{field}: {one}");
            }
            (several, field) => panic!("{field}: {several:?}"),
        }
        assert!(asked.question.problems.iter().all(|problem| problem.code == Code::ContextInvalid));
    }
}

#[test]
fn only_headers_that_hold_a_license_are_taken_away() {
    let headers = |lines: &[(&str, &[u8])], config: &str| {
        let http = HttpRequest { header_map: raw(lines), ..HttpRequest::default() };
        read(&attributes(http), &envoy(config)).license_headers
    };
    let both = "{license: [{header: authorization, scheme: License}, {header: Data-License}]}";
    assert_eq!(headers(&[("authorization", b"Bearer b")], both), ["data-license"]);
    assert_eq!(headers(&[("authorization", b"license a")], both), ["authorization", "data-license"]);
    assert_eq!(
        headers(&[("authorization", b"License a"), ("authorization", b"License b")], "{}"),
        ["authorization"]
    );
}

#[test]
fn grpc_is_told_by_the_type_of_the_body() {
    for (kind, is_grpc) in
        [("application/grpc", true), ("application/grpc+proto", true), ("application/json", false)]
    {
        let http = HttpRequest {
            headers: [("content-type".to_owned(), kind.to_owned())].into(),
            ..HttpRequest::default()
        };
        assert_eq!(read(&attributes(http), &envoy("{}")).is_grpc, is_grpc, "{kind}");
    }
}

proptest! {
    #[test]
    fn any_bytes_of_headers_are_read_or_named(
        lines in prop::collection::vec((select_name(), prop::collection::vec(any::<u8>(), 0..24)), 0..6),
        path in any::<String>(), principal in any::<String>(), certificate in any::<String>(),
    ) {
        let lines: Vec<(&str, &[u8])> = lines.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let http = HttpRequest { path, header_map: raw(&lines), method: "GET".to_owned(), ..HttpRequest::default() };
        let source = Some(Peer { principal, certificate, ..Peer::default() });
        let attributes = AttributeContext { source, ..attributes(http) };
        let config = envoy(
            "{purpose: [{header: x-purpose}], roles: [{trusted_header: x-roles}], trust_domains: [example.org], \
             routes: [{path: '/{dataset...}'}], context: {any: [{header: x-purpose}]}}",
        );
        let question = read(&attributes, &config).question;
        if question.problems.is_empty() {
            let purposes = lines.iter().filter(|(name, _)| *name == "x-purpose");
            let purposes = purposes.flat_map(|(_, value)| value.split(|byte| *byte == b','));
            for purpose in purposes.map(|value| std::str::from_utf8(value).unwrap().trim()) {
                prop_assert!(purpose.is_empty() || purpose == question.purpose);
            }
        }
    }
}

fn select_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["authorization", "x-purpose", "x-roles", "content-type", ":path"])
}
