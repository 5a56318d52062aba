//! What filters before this one know of a request: Envoy's dynamic metadata.
//!
//! Refuses to guess which of several tokens is meant, and values that have no meaning in JSON.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use prost::Message;

use crate::grpc::convert;

/// Where `jwt_authn` puts what it verified.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

type Fields = HashMap<String, Value>;

/// A claim of the verified token.
pub(super) fn claim(
    metadata: Option<&Metadata>,
    payload_key: Option<&str>,
    name: &str,
) -> Result<Option<serde_json::Value>, String> {
    let Some(verified) = fields(metadata, JWT_AUTHN) else { return Ok(None) };
    let payload = match payload_key {
        Some(key) => verified.get(key),
        None if verified.len() > 1 => {
            return Err(
                "`jwt_authn` left several things; `envoy.jwt_payload_key` says which is meant".to_owned()
            );
        }
        None => verified.values().next(),
    };
    match payload.and_then(|payload| payload.kind.as_ref()) {
        Some(Kind::StructValue(claims)) => json(walk(&claims.fields, name)),
        None => Ok(None),
        Some(_) => Err("what `jwt_authn` left is not the payload of a token".to_owned()),
    }
}

/// A value in a namespace.
pub(super) fn value(
    metadata: Option<&Metadata>,
    namespace: &str,
    path: &str,
) -> Result<Option<serde_json::Value>, String> {
    json(fields(metadata, namespace).and_then(|fields| walk(fields, path)))
}

fn fields<'a>(metadata: Option<&'a Metadata>, namespace: &str) -> Option<&'a Fields> {
    Some(&metadata?.filter_metadata.get(namespace)?.fields)
}

/// The value under a name; where there is none of all of it, the dots in it lead inside.
fn walk<'a>(fields: &'a Fields, path: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(path) {
        return Some(value);
    }
    let (outer, inner) = path.split_once('.')?;
    match fields.get(outer)?.kind.as_ref()? {
        Kind::StructValue(object) => walk(&object.fields, inner),
        _ => None,
    }
}

/// The same as the gate's own messages have it.
fn json(value: Option<&Value>) -> Result<Option<serde_json::Value>, String> {
    let Some(value) = value else { return Ok(None) };
    let same = prost_types::Value::decode(value.encode_to_vec().as_slice());
    let same = same.map_err(|_| "it is nested too deep".to_owned())?;
    convert::value(same).map(Some).map_err(|refusal| refusal.to_string())
}

/// Text in metadata.
pub(super) fn text(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

/// A list in metadata.
pub(super) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

/// An object in metadata.
pub(super) fn object(fields: Fields) -> Value {
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: f64) -> Value {
        Value { kind: Some(Kind::NumberValue(number)) }
    }

    fn metadata(namespace: &str, entries: Vec<(&str, Value)>) -> Option<Metadata> {
        let fields = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let filter_metadata = [(namespace.to_owned(), Struct { fields })].into();
        Some(Metadata { filter_metadata, ..Metadata::default() })
    }

    fn payload() -> Value {
        let realm = object([("roles".to_owned(), list(vec![text("lead")]))].into());
        let claims = [("sub", text("ana")), ("realm", realm), ("https://example.org/org", text("acme"))];
        object(claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn claims_are_found_by_name_and_inside() {
        let verified = metadata(JWT_AUTHN, vec![("jwt_payload", payload())]);
        let find = |name: &str| claim(verified.as_ref(), None, name).unwrap();
        assert_eq!(find("sub"), Some("ana".into()));
        assert_eq!(find("realm.roles"), Some(serde_json::json!(["lead"])));
        assert_eq!(find("https://example.org/org"), Some("acme".into()));
        for absent in ["", ".", "realm.", "realm.roles.0", "sub.x", "none"] {
            assert_eq!(find(absent), None, "{absent}");
        }
        assert_eq!(claim(None, None, "sub"), Ok(None));
        assert_eq!(claim(verified.as_ref(), Some("other"), "sub"), Ok(None));
    }

    #[test]
    fn of_several_tokens_none_is_guessed() {
        let several = metadata(JWT_AUTHN, vec![("a", payload()), ("b", object(Fields::new()))]);
        assert!(claim(several.as_ref(), None, "sub").is_err());
        assert_eq!(claim(several.as_ref(), Some("a"), "sub"), Ok(Some("ana".into())));
        assert_eq!(claim(several.as_ref(), Some("b"), "sub"), Ok(None));
        let text = metadata(JWT_AUTHN, vec![("a", text("x"))]);
        assert!(claim(text.as_ref(), None, "sub").is_err());
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let odd =
            metadata("n", vec![("nan", number(f64::NAN)), ("ten", number(10.0)), ("none", Value::default())]);
        assert!(value(odd.as_ref(), "n", "nan").is_err());
        assert!(value(odd.as_ref(), "n", "none").is_err());
        assert_eq!(value(odd.as_ref(), "n", "ten"), Ok(Some(10.into())));
        assert_eq!(value(odd.as_ref(), "m", "ten"), Ok(None));
    }
}
