//! What anyone may know of the gate, under `/.well-known`. Refuses to publish anything secret:
//! the keyring gives out public keys only.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::Server;

/// `GET /.well-known/jwks.json`: the public keys of all issuers (RFC 7517).
pub(super) async fn jwks(State(server): State<Server>) -> Response {
    let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "max-age=60")];
    (headers, server.keyring.published().to_string()).into_response()
}
