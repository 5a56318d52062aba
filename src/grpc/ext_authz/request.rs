//! From what Envoy says of a request to a check: a pure function of both it and the configuration.
//!
//! Refuses nothing itself, and guesses nothing: what cannot be read is a problem of the check, which denies it
//! and is recorded like any other.

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use serde_json::{Map, Value};

use super::evidence;
use super::headers::Headers;
use super::metadata;
use super::path::{self, Said};
use crate::config::Envoy;
use crate::config::envoy::{Field, Principal, Source};
use crate::domain::request::{Holder, Resource, Subject};
use crate::domain::{CheckRequest, Code, LicenseRef, Reason};

/// The headers by which HTTP/2 names the target, and which tell how the body is to be read.
const PATH: &str = ":path";
const CONTENT_TYPE: &str = "content-type";

/// What Envoy asks about.
pub(super) struct Asked {
    /// As a check.
    pub(super) question: CheckRequest,
    /// The headers that hold the license.
    pub(super) license_headers: Vec<String>,
    /// Whether the client speaks gRPC, and is to be told so.
    pub(super) is_grpc: bool,
}

/// Reads what Envoy says of a request.
pub(super) fn read(attributes: &AttributeContext, envoy: &Envoy) -> Asked {
    let absent = HttpRequest::default();
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref()).unwrap_or(&absent);
    let mut reader = Reader { envoy, attributes, http, headers: Headers::of(http), problems: Vec::new() };
    let question = reader.question();
    let is_grpc = reader.headers.lines(CONTENT_TYPE).any(|value| value.starts_with(b"application/grpc"));
    let sources = envoy.license.iter().chain(&envoy.license_id);
    let license_headers = sources.filter_map(|source| reader.holder_of_license(source)).collect();
    Asked { question, license_headers, is_grpc }
}

struct Reader<'a> {
    envoy: &'a Envoy,
    attributes: &'a AttributeContext,
    http: &'a HttpRequest,
    headers: Headers<'a>,
    problems: Vec<Reason>,
}

impl<'a> Reader<'a> {
    fn question(&mut self) -> CheckRequest {
        let envoy = self.envoy;
        if self.headers.are_missing() {
            self.note("headers", "Envoy sent none", "come with the request, from an HTTP filter");
        }
        let said = self.route();
        let said = said.as_ref();
        CheckRequest {
            request_id: self.http.id.clone(),
            license: self.license(),
            subject: Subject {
                id: self.text("subject.id", &envoy.subject),
                organization: self.text("subject.organization", &envoy.organization),
                roles: self.roles(),
            },
            action: self.field("action", Field::Action, said, &envoy.action),
            resource: Resource {
                id: self.field("resource.id", Field::Dataset, said, &envoy.dataset),
                ..Resource::default()
            },
            purpose: self.field("purpose", Field::Purpose, said, &envoy.purpose),
            region: self.field("region", Field::Region, said, &envoy.region),
            project: self.field("project", Field::Project, said, &envoy.project),
            environment: self.field("environment", Field::Environment, said, &envoy.environment),
            holder: self.holder(),
            context: self.context(),
            supported_obligations: envoy.supported_obligations.clone(),
            problems: std::mem::take(&mut self.problems),
            ..CheckRequest::default()
        }
    }

    fn note(&mut self, field: &str, problem: &str, remedy: &str) {
        let reason = Reason::new(Code::ContextInvalid, format!("{field}: {problem}"));
        self.problems.push(reason.would_pass_if(format!("`{field}` {remedy}")));
    }

    /// What the route says that the request matches. A tunnel has no path, and what goes through it is not seen.
    fn route(&mut self) -> Option<Said<'a>> {
        if self.http.method == "CONNECT" {
            self.note(
                "method",
                "`CONNECT` opens a tunnel, and nothing in it can be decided about",
                "is another",
            );
            return None;
        }
        if self.envoy.routes.is_empty() {
            return None;
        }
        let segments = match self.target().and_then(path::parse) {
            Ok(segments) => segments,
            Err(problem) => {
                self.note("path", problem, "is sent in the one form that all read alike");
                return None;
            }
        };
        let said = path::route(&self.envoy.routes, &self.http.method, &segments);
        if said.is_none() {
            self.note("path", "no route is about this method and path", "is one that `envoy.routes` knows");
        }
        said
    }

    /// The path as it was sent: where Envoy tells bytes, the text beside them may differ.
    fn target(&self) -> Result<&'a str, &'static str> {
        let mut lines = self.headers.lines(PATH);
        match (lines.next(), lines.next()) {
            (None, _) => Ok(&self.http.path),
            (Some(only), None) => std::str::from_utf8(only).map_err(|_| "it is not UTF-8"),
            (Some(_), Some(_)) => Err("it is sent twice"),
        }
    }

    fn license(&mut self) -> LicenseRef {
        let token = self.text("license", &self.envoy.license);
        if !token.is_empty() {
            return LicenseRef::Token(token);
        }
        match self.text("license_id", &self.envoy.license_id) {
            id if id.is_empty() => LicenseRef::Missing,
            id => LicenseRef::Id(id),
        }
    }

    fn holder(&mut self) -> Holder {
        let Some(source) = &self.attributes.source else { return Holder::default() };
        let spiffe_id = evidence::spiffe_id(&source.principal, &self.envoy.trust_domains);
        let thumbprint = evidence::thumbprint(&source.certificate).unwrap_or_else(|problem| {
            self.note(
                "holder.certificate_thumbprint",
                problem,
                "is that of the certificate that Envoy verified",
            );
            None
        });
        Holder {
            spiffe_id: spiffe_id.unwrap_or_default().to_owned(),
            certificate_thumbprint: thumbprint.unwrap_or_default(),
            ..Holder::default()
        }
    }

    /// What the route says of a field, or else its sources.
    fn field(&mut self, name: &str, field: Field, said: Option<&Said<'_>>, sources: &[Source]) -> String {
        match said.and_then(|said| said.of(field)) {
            Some(text) => text.to_owned(),
            None => self.text(name, sources),
        }
    }

    /// A field that is one text.
    fn text(&mut self, name: &str, sources: &[Source]) -> String {
        match self.first(name, sources, single) {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(_) => {
                self.note(name, "it is not text", "is text");
                String::new()
            }
        }
    }

    /// A list, or text with commas.
    fn roles(&mut self) -> Vec<String> {
        const NAME: &str = "subject.roles";
        let found = match self.first(NAME, &self.envoy.roles, list) {
            None => return Vec::new(),
            Some(Value::String(text)) => {
                let roles = text.split(',').map(str::trim).filter(|role| !role.is_empty());
                return roles.map(str::to_owned).collect();
            }
            Some(Value::Array(items)) => items,
            Some(_) => vec![Value::Null],
        };
        let is_text = found.iter().all(Value::is_string);
        if !is_text {
            self.note(NAME, "it is neither text nor a list of texts", "is a list of texts");
            return Vec::new();
        }
        found.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn context(&mut self) -> Map<String, Value> {
        let mut context = Map::new();
        for (name, sources) in &self.envoy.context {
            if let Some(value) = self.first(&format!("context.{name}"), sources, single) {
                context.insert(name.clone(), value);
            }
        }
        context
    }

    /// What the first source yields that yields anything. A source that cannot be read is the last one asked: another
    /// must not stand in for what was meant.
    fn first(&mut self, name: &str, sources: &[Source], of_header: OfHeader) -> Option<Value> {
        for source in sources {
            match self.yields(source, of_header) {
                Ok(None) => {}
                Ok(Some(value)) => return Some(value),
                Err(problem) => {
                    self.note(name, &problem, "can be read, and says one thing");
                    return None;
                }
            }
        }
        None
    }

    fn yields(&self, source: &Source, of_header: OfHeader) -> Result<Option<Value>, String> {
        let attributes = self.attributes;
        let found = match source {
            Source::Header { name, scheme } => of_header(&self.headers, name, scheme.as_deref())?,
            Source::TrustedHeader(name) => of_header(&self.headers, name, None)?,
            Source::Extension(name) => {
                attributes.context_extensions.get(name).map(|text| text.clone().into())
            }
            Source::Claim(name) => metadata::claim(
                attributes.metadata_context.as_ref(),
                self.envoy.jwt_payload_key.as_deref(),
                name,
            )?,
            Source::Metadata(at) => {
                metadata::value(attributes.metadata_context.as_ref(), &at.namespace, &at.path)?
            }
            Source::Principal(Principal::Spiffe) => {
                let principal = attributes.source.as_ref().map_or("", |source| &source.principal);
                evidence::spiffe_id(principal, &self.envoy.trust_domains).map(Into::into)
            }
            Source::Value(text) => Some(text.clone().into()),
        };
        Ok(found.filter(|value| !value.is_null() && value.as_str() != Some("")))
    }

    /// The header that a source of licenses reads; with a scheme, only if it holds a license now, for it may hold
    /// other credentials that the upstream needs.
    fn holder_of_license(&self, source: &Source) -> Option<String> {
        match source {
            Source::Header { name, scheme: Some(scheme) } => {
                let holds_one = !matches!(self.headers.single(name, Some(scheme)), Ok(None));
                holds_one.then(|| name.to_ascii_lowercase())
            }
            Source::Header { name, scheme: None } | Source::TrustedHeader(name) => {
                Some(name.to_ascii_lowercase())
            }
            _ => None,
        }
    }
}

/// How a header is read: its name, and a scheme.
type OfHeader = fn(&Headers<'_>, &str, Option<&str>) -> Result<Option<Value>, String>;

fn single(headers: &Headers<'_>, name: &str, scheme: Option<&str>) -> Result<Option<Value>, String> {
    Ok(headers.single(name, scheme)?.map(Into::into))
}

fn list(headers: &Headers<'_>, name: &str, _: Option<&str>) -> Result<Option<Value>, String> {
    let values = headers.values(name)?;
    Ok((!values.is_empty()).then(|| values.into()))
}

#[cfg(test)]
mod tests;
