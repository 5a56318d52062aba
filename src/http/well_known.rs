//! What anyone may know of the gate, under `/.well-known`. Refuses to publish anything secret:
//! the keyring gives out public keys only; and to repeat what is no name of a host.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderMap, Uri};
use serde_json::{Map, Value};

use super::authzen::Endpoint;
use super::malformed::Malformed;
use super::problem::Problem;
use super::{Origin, Server};

/// The longest name of a host, with its port, in bytes.
const MAX_HOST: usize = 255 + ":65535".len();

/// `GET /.well-known/jwks.json`: the public keys of all issuers (RFC 7517).
pub(super) async fn jwks(State(server): State<Server>) -> Response {
    let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "max-age=60")];
    (headers, server.keyring.published().to_string()).into_response()
}

/// `GET /.well-known/authzen-configuration`: where the parts of the Authorization API are.
pub(super) async fn authzen(
    State(server): State<Server>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (base, cache) = match &server.origin {
        Origin::Known(url) => (url.clone(), "max-age=300"),
        // What one client names as the host is nothing to another.
        Origin::AsAsked(scheme) => (format!("{scheme}://{}", host(&uri, &headers)?), "no-store"),
    };
    let endpoints =
        Endpoint::ALL.map(|endpoint| (endpoint.parameter(), format!("{base}{}", endpoint.path())));
    let mut members = Map::from_iter([("policy_decision_point".to_owned(), Value::from(base))]);
    members.extend(endpoints.map(|(name, url)| (name.to_owned(), url.into())));
    Ok(([(CACHE_CONTROL, cache)], Json(members)).into_response())
}

/// The host that a request is sent to.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Malformed> {
    let mut named = headers.get_all(HOST).iter();
    let header = || match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok()?.parse::<Authority>().ok(),
        _ => None,
    };
    // HTTP/2 has no such header: its `:authority` is here.
    let host = uri.authority().cloned().or_else(header);
    let is_host = |host: &Authority| {
        let name = host.host();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        host.as_str().len() <= MAX_HOST && !name.is_empty() && host.as_str().chars().all(known)
    };
    host.filter(is_host).ok_or_else(|| Malformed::at("host", "must be a host, with or without a port"))
}
