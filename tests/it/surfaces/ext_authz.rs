//! Envoy's external authorization as a way to ask: every field from what Envoy knows, as the configuration has it.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::Struct;
use prost::Message;
use serde_json::{Map, Value, json};
use tollgate::domain::{CheckRequest, LicenseRef};
use tollgate::grpc::convert;
use tonic::async_trait;
use tonic::transport::Channel;

use super::{Surface, Verdict};
use crate::gate::Gate;
use crate::samples::DUTIES;

/// Where everything comes from but the license and who the client is.
const NAMESPACE: &str = "question";

/// How a gate reads it.
pub(super) fn configuration() -> String {
    let told = |path: &str| json!([{ "metadata": { "namespace": NAMESPACE, "path": path } }]);
    let context = ["time", "ip", "risk", "weather"].map(|name| (name, told(&format!("context.{name}"))));
    let fields = [
        "subject",
        "organization",
        "roles",
        "action",
        "dataset",
        "purpose",
        "region",
        "project",
        "environment",
    ];
    let mut all = Map::from_iter(fields.map(|name| (name.to_owned(), told(name))));
    all.insert("context".to_owned(), Map::from_iter(context.map(|(name, at)| (name.to_owned(), at))).into());
    all.insert("license".to_owned(), json!([{ "extension": "license" }]));
    all.insert("trust_domains".to_owned(), json!(["acme"]));
    all.insert("supported_obligations".to_owned(), json!(DUTIES));
    Value::Object(all).to_string()
}

/// A gate as Envoy asks it.
pub(super) struct ExtAuthz(AuthorizationClient<Channel>);

impl ExtAuthz {
    pub(super) async fn of(gate: &Gate) -> Self {
        Self(AuthorizationClient::new(gate.channel().await))
    }
}

/// A value as Envoy has it: the same message under another name.
fn metadata(fields: Map<String, Value>) -> Struct {
    let fields = convert::ask(CheckRequest { context: fields, ..CheckRequest::default() }).context.unwrap();
    Struct::decode(fields.encode_to_vec().as_slice()).unwrap()
}

fn asked(question: &CheckRequest) -> auth::CheckRequest {
    let CheckRequest { subject, .. } = question;
    let said = json!({
        "subject": subject.id, "organization": subject.organization, "roles": subject.roles,
        "action": question.action, "dataset": question.resource.id, "purpose": question.purpose,
        "region": question.region, "project": question.project, "environment": question.environment,
        "context": question.context,
    });
    let said = said.as_object().unwrap().clone();
    let license = match &question.license {
        LicenseRef::Missing => None,
        LicenseRef::Token(token) => Some(("license".to_owned(), token.clone())),
        LicenseRef::Id(id) => Some(("license_id".to_owned(), id.clone())),
    };
    let http = auth::attribute_context::HttpRequest {
        id: question.request_id.clone(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: [(":path".to_owned(), "/".to_owned())].into(),
        ..Default::default()
    };
    let peer =
        auth::attribute_context::Peer { principal: question.holder.spiffe_id.clone(), ..Default::default() };
    auth::CheckRequest {
        attributes: Some(auth::AttributeContext {
            source: Some(peer),
            request: Some(auth::attribute_context::Request { http: Some(http), ..Default::default() }),
            context_extensions: license.into_iter().collect(),
            metadata_context: Some(Metadata {
                filter_metadata: [(NAMESPACE.to_owned(), metadata(said))].into(),
                ..Metadata::default()
            }),
            ..Default::default()
        }),
    }
}

/// Each code once.
fn without_words<'a>(codes: impl Iterator<Item = &'a str>) -> Vec<[String; 3]> {
    let codes: BTreeSet<&str> = codes.collect();
    codes.into_iter().map(|code| [code.to_owned(), String::new(), String::new()]).collect()
}

#[async_trait]
impl Surface for ExtAuthz {
    async fn ask(&mut self, question: &CheckRequest) -> Verdict {
        let answer = self.0.check(asked(question)).await.unwrap().into_inner();
        let told = answer.dynamic_metadata.unwrap();
        let told = prost_types::Struct::decode(told.encode_to_vec().as_slice()).unwrap();
        let told = Value::Object(convert::members(Some(told)).unwrap());
        let codes = told["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap());
        let duties = match answer.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => {
                let headers = ok.headers.into_iter().filter_map(|option| option.header);
                let duties = headers.filter(|header| header.key == "x-license-obligations");
                duties.map(|header| serde_json::from_str::<Vec<Value>>(&header.value).unwrap()).next()
            }
            _ => None,
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let duties = duties.unwrap_or_default();
        Verdict {
            allowed: answer.status.unwrap().code == 0,
            reasons: without_words(codes),
            obligations: duties.iter().map(|duty| [text(&duty["id"]), text(&duty["type"])]).collect(),
            remaining: Default::default(),
        }
    }

    fn can_say(&self, question: &CheckRequest) -> bool {
        let holder = &question.holder;
        question.combined_with.is_empty()
            && !question.combined_with_external
            && question.usage.is_empty()
            && question.resource.properties.is_empty()
            && question.resource.kind == "dataset"
            && question.supported_obligations == DUTIES
            // One that is known already would be the same use, which rehearsals are not.
            && (question.request_id.is_empty() || question.request_id.len() > 128)
            && holder.certificate_thumbprint.is_empty()
            && holder.jwk_thumbprint.is_empty()
            && question.license != LicenseRef::Token(String::new())
            && question.context.values().all(|value| !value.is_null())
    }

    fn tells(&self, verdict: &Verdict) -> Verdict {
        let reasons = without_words(verdict.codes());
        Verdict { reasons, remaining: Default::default(), ..verdict.clone() }
    }
}
