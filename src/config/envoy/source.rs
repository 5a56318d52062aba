//! Where a field of a check is taken from. Refuses a source that is of two kinds, or of none.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Where a field may be taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SourceKeys", into = "SourceKeys")]
pub enum Source {
    /// A header as the client sent it, all of it or what stands behind a scheme.
    Header {
        /// The header's name.
        name: String,
        /// The scheme, as in `License eyJ...`.
        scheme: Option<String>,
    },
    /// A header that Envoy, or a filter before this one, wrote.
    TrustedHeader(String),
    /// An entry of the route's `context_extensions`.
    Extension(String),
    /// A claim of the token that `jwt_authn` verified.
    Claim(String),
    /// A value in the metadata of another filter.
    Metadata(MetadataPath),
    /// The client's certificate.
    Principal(Principal),
    /// Always the same.
    Value(String),
}

/// A source as it is written: exactly one of the kinds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceKeys {
    /// A header of the request as the client sent it, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// With `header`: only a value that begins with this scheme counts, without it, as in
    /// `{header: authorization, scheme: License}`. Upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// A header that Envoy or a filter before this one writes. Envoy must take away what the client sent under that
    /// name, or the client chooses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_header: Option<String>,
    /// An entry of `context_extensions`, which the route or virtual host sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// A claim of the token that `jwt_authn` verified, as `name` or `outer.inner`. Needs `payload_in_metadata` there,
    /// and `envoy.filters.http.jwt_authn` among `metadata_context_namespaces` of `ext_authz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// A value that another filter left in its metadata; the namespace must be among `metadata_context_namespaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataPath>,
    /// The client's certificate, as Envoy verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// A constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A value in Envoy's dynamic metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataPath {
    /// The namespace, mostly the name of a filter.
    pub namespace: String,
    /// The keys from there, joined by dots.
    pub path: String,
}

/// What is taken of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Principal {
    /// Its SPIFFE id, where the trust domain is one of `envoy.trust_domains`.
    Spiffe,
}

/// The keys do not make a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not exactly one kind.
    #[error("has {0} kinds; a source is exactly one, such as `{{header: x-purpose}}`")]
    Kinds(usize),
    /// A scheme of nothing.
    #[error("has a `scheme` and no `header`; write `{{header: authorization, scheme: License}}`")]
    SchemeAlone,
}

impl TryFrom<SourceKeys> for Source {
    type Error = SourceError;

    fn try_from(keys: SourceKeys) -> Result<Self, SourceError> {
        let SourceKeys { header, scheme, trusted_header, extension, claim, metadata, principal, value } =
            keys;
        if scheme.is_some() && header.is_none() {
            return Err(SourceError::SchemeAlone);
        }
        let mut kinds = [
            header.map(|name| Self::Header { name, scheme }),
            trusted_header.map(Self::TrustedHeader),
            extension.map(Self::Extension),
            claim.map(Self::Claim),
            metadata.map(Self::Metadata),
            principal.map(Self::Principal),
            value.map(Self::Value),
        ]
        .into_iter()
        .flatten();
        match (kinds.next(), kinds.count()) {
            (Some(one), 0) => Ok(one),
            (first, others) => Err(SourceError::Kinds(usize::from(first.is_some()) + others)),
        }
    }
}

impl From<Source> for SourceKeys {
    fn from(source: Source) -> Self {
        let none = Self::default();
        match source {
            Source::Header { name, scheme } => Self { header: Some(name), scheme, ..none },
            Source::TrustedHeader(name) => Self { trusted_header: Some(name), ..none },
            Source::Extension(name) => Self { extension: Some(name), ..none },
            Source::Claim(name) => Self { claim: Some(name), ..none },
            Source::Metadata(path) => Self { metadata: Some(path), ..none },
            Source::Principal(principal) => Self { principal: Some(principal), ..none },
            Source::Value(text) => Self { value: Some(text), ..none },
        }
    }
}

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "Source".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = SourceKeys::json_schema(generator);
        let mut schema = json_schema!({ "type": "object", "title": "source", "additionalProperties": false });
        if let Some(properties) = keys.get("properties") {
            schema.insert("properties".to_owned(), properties.clone());
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Source, String> {
        serde_saphyr::from_str::<Source>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_source_is_of_one_kind() {
        let license = Source::Header { name: "authorization".to_owned(), scheme: Some("License".to_owned()) };
        assert_eq!(read("{header: authorization, scheme: License}"), Ok(license));
        assert_eq!(read("{claim: realm.roles}"), Ok(Source::Claim("realm.roles".to_owned())));
        assert_eq!(read("{principal: spiffe}"), Ok(Source::Principal(Principal::Spiffe)));
        for (text, words) in [
            ("{}", "has 0 kinds"),
            ("{header: a, value: b}", "has 2 kinds"),
            ("{header: a, value: b, claim: c}", "has 3 kinds"),
            ("{value: b, scheme: License}", "no `header`"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(words), "{text}: {found}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let metadata = MetadataPath { namespace: "n".to_owned(), path: "a.b".to_owned() };
        for source in [
            Source::Header { name: "x".to_owned(), scheme: None },
            Source::TrustedHeader("x".to_owned()),
            Source::Extension("x".to_owned()),
            Source::Metadata(metadata),
            Source::Value(String::new()),
        ] {
            let written = serde_json::to_value(&source).unwrap();
            assert_eq!(written.as_object().unwrap().len(), 1);
            assert_eq!(serde_json::from_value::<Source>(written).unwrap(), source);
        }
    }
}
