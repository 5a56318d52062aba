//! The OpenAPI 3.1 description of everything that the HTTP listener serves.
//!
//! Refuses words of its own about a member: what a member means is said where it is declared.

pub mod requests;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::authzen::answer::{Evaluated, EvaluatedAll};
use super::authzen::{Endpoint, search};
use super::problem::ProblemDetails;
use crate::decision::Sought;

const DESCRIPTION: &str = "Decisions about licensed data, as OpenID AuthZEN Authorization API 1.0, and how the gate \
fares. Where `listeners.authzen.enabled` is off, `/access` and `/.well-known/authzen-configuration` are not served.";

/// `GET /openapi.json`: this description.
pub(super) async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// The description.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.transforms.push(Box::new(RecursiveTransform(never_null)));
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in Endpoint::ALL {
        paths.insert(endpoint.path().to_owned(), json!({ "post": operation(endpoint, &mut schemas) }));
    }
    for (path, description, media, schema) in pages() {
        let other = match path {
            "/readyz" => Some(("503", content("What it waits for.", media, schema.clone()))),
            "/.well-known/authzen-configuration" => Some(("400", named("responses/400"))),
            _ => None,
        };
        let responses = [("200", content(description, media, schema))].into_iter().chain(other);
        let responses: Map<_, _> = responses.map(|(status, answer)| (status.to_owned(), answer)).collect();
        paths.insert(path.to_owned(), json!({ "get": { "operationId": path, "responses": responses } }));
    }
    let problem = schemas.subschema_for::<ProblemDetails>();
    let mut components = schemas.take_definitions(true);
    components.insert("Readiness".to_owned(), readiness());
    components.insert("Configuration".to_owned(), configuration());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": problems(&problem),
            "parameters": { "X-Request-ID": {
                "name": "X-Request-ID", "in": "header", "schema": { "type": "string" },
                "description": "A name for the request, repeated on the answer.",
            } },
            "securitySchemes": { "license": {
                "type": "http", "scheme": "License",
                "description": "A license token, for questions whose `context` names none.",
            } },
        },
    })
}

fn operation(endpoint: Endpoint, schemas: &mut SchemaGenerator) -> Value {
    let (summary, asked, answered) = match endpoint {
        Endpoint::Evaluation => (
            "May this subject do this with this dataset, under this license, now?",
            of::<requests::Evaluation>(schemas),
            of::<Evaluated>(schemas),
        ),
        Endpoint::Evaluations => (
            "The same, several times. Without `evaluations` the answer is that to one evaluation.",
            of::<requests::Evaluations>(schemas),
            json!({ "anyOf": [of::<EvaluatedAll>(schemas), of::<Evaluated>(schemas)] }),
        ),
        Endpoint::Search(sought) => {
            let (summary, asked) = match sought {
                Sought::Subject => ("Which users may?", of::<requests::SubjectSearch>(schemas)),
                Sought::Resource => ("With which datasets?", of::<requests::ResourceSearch>(schemas)),
                Sought::Action => ("What may be done?", of::<requests::ActionSearch>(schemas)),
            };
            (summary, asked, of::<search::Results>(schemas))
        }
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), content("Decided, allowed or not.", "application/json", answered));
    for status in ["400", "413", "500", "503"] {
        responses.insert(status.to_owned(), named(&format!("responses/{status}")));
    }
    json!({
        "operationId": endpoint.parameter().trim_end_matches("_endpoint"),
        "summary": summary,
        "security": [{}, { "license": [] }],
        "parameters": [named("parameters/X-Request-ID")],
        "requestBody": { "required": true, "content": { "application/json": { "schema": asked } } },
        "responses": responses,
    })
}

fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

/// A component by its name.
fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/{name}") })
}

/// A member that has no value is absent: `null` is neither sent nor read.
fn never_null(schema: &mut Schema) {
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    let Some(Value::Array(mut branches)) = schema.remove("anyOf") else { return };
    branches.retain(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
    match branches.as_slice() {
        [Value::Object(only)] => only.iter().for_each(|(name, value)| {
            schema.insert(name.clone(), value.clone());
        }),
        _ => {
            schema.insert("anyOf".to_owned(), branches.into());
        }
    }
}

fn content(description: &str, media: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { media: { "schema": schema } } })
}

fn problems(problem: &Schema) -> Value {
    let of = |description| content(description, "application/problem+json", json!(problem));
    json!({
        "400": of("The request is not well-formed; `field` names the part."),
        "413": of("The body, or the answer, is too large."),
        "500": of("A fault in the gate."),
        "503": of("The gate could not decide: it is stopping, or the time was over. It may be asked again."),
    })
}

/// What is not AuthZEN: path, words, media type and schema.
fn pages() -> [(&'static str, &'static str, &'static str, Value); 6] {
    const JSON: &str = "application/json";
    let text = json!({ "type": "string" });
    let keys = json!({ "type": "array", "items": { "type": "object" } });
    let key_set = json!({ "type": "object", "required": ["keys"], "properties": { "keys": keys } });
    let (configuration, readiness) = (named("schemas/Configuration"), named("schemas/Readiness"));
    [
        ("/.well-known/authzen-configuration", "Where the parts of AuthZEN are.", JSON, configuration),
        (
            "/.well-known/jwks.json",
            "All issuers' public keys (RFC 7517).",
            "application/jwk-set+json",
            key_set,
        ),
        ("/healthz", "The process answers.", "text/plain", text.clone()),
        ("/readyz", "The gate decides.", JSON, readiness),
        ("/metrics", "Metrics, for Prometheus.", "text/plain", text),
        ("/openapi.json", "This description.", JSON, json!({ "type": "object" })),
    ]
}

fn readiness() -> Value {
    json!({
        "type": "object",
        "required": ["ready", "parts"],
        "properties": {
            "ready": { "type": "boolean", "description": "Whether the gate decides." },
            "parts": { "type": "array", "items": {
                "type": "object",
                "required": ["name", "state", "detail"],
                "properties": {
                    "name": { "type": "string" },
                    "state": { "enum": ["ready", "degraded", "not_ready"] },
                    "detail": { "type": "string" },
                },
            } },
        },
    })
}

fn configuration() -> Value {
    let url = json!({ "type": "string", "format": "uri" });
    let names = ["policy_decision_point"].into_iter().chain(Endpoint::ALL.map(Endpoint::parameter));
    let members: Map<_, _> = names.map(|name| (name.to_owned(), url.clone())).collect();
    let required: Vec<_> = members.keys().cloned().collect();
    json!({ "type": "object", "required": required, "properties": members })
}
