//! The headers of a request as Envoy tells them: line by line, or joined by name.
//!
//! Refuses to choose between several values of a header that must have one, and to tell lines from commas: to
//! HTTP they are the same.

use std::str;

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;

/// The headers of one request.
pub(super) struct Headers<'a> {
    /// In their order, where Envoy keeps it.
    lines: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Headers<'a> {
    pub(super) fn of(http: &'a HttpRequest) -> Self {
        let raw = http.header_map.iter().flat_map(|map| &map.headers);
        let raw = raw.map(|header| {
            let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
            (header.key.as_str(), value)
        });
        let mut lines: Vec<_> = raw.collect();
        if lines.is_empty() {
            lines = http.headers.iter().map(|(key, value)| (key.as_str(), value.as_bytes())).collect();
        }
        Self { lines }
    }

    /// Whether Envoy told of none: then it is set up in a way that this gate does not know.
    pub(super) fn are_missing(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines of a header.
    pub(super) fn lines(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.lines.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Every value of a header: those of several lines, and those between commas.
    pub(super) fn values(&self, name: &str) -> Result<Vec<&'a str>, String> {
        let mut values = Vec::new();
        for line in self.lines(name) {
            let line = str::from_utf8(line).map_err(|_| format!("the header `{name}` is not UTF-8"))?;
            values.extend(line.split(',').map(str::trim).filter(|value| !value.is_empty()));
        }
        Ok(values)
    }

    /// The one value of a header; with a scheme, what stands behind it.
    pub(super) fn single(&self, name: &str, scheme: Option<&str>) -> Result<Option<&'a str>, String> {
        let values = self.values(name)?.into_iter();
        let mut values =
            values.filter_map(|value| scheme.map_or(Some(value), |scheme| behind(value, scheme)));
        let first = values.next();
        if values.any(|other| Some(other) != first) {
            return Err(format!("the header `{name}` has several values"));
        }
        Ok(first)
    }
}

/// What stands behind a scheme, if the value has that one.
fn behind<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (before, after) = value.split_once(' ')?;
    let after = after.trim();
    (before.eq_ignore_ascii_case(scheme) && !after.is_empty()).then_some(after)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};

    use super::*;

    fn raw(lines: &[(&str, &[u8])]) -> HttpRequest {
        let line = |(key, value): &(&str, &[u8])| HeaderValue {
            key: (*key).to_owned(),
            raw_value: value.to_vec(),
            ..HeaderValue::default()
        };
        let headers = lines.iter().map(line).collect();
        HttpRequest { header_map: Some(HeaderMap { headers }), ..HttpRequest::default() }
    }

    fn joined(name: &str, value: &str) -> HttpRequest {
        HttpRequest { headers: [(name.to_owned(), value.to_owned())].into(), ..HttpRequest::default() }
    }

    #[test]
    fn lines_and_commas_are_the_same() {
        for (http, expected) in [
            (raw(&[("x", b"a"), ("X", b" a ")]), Ok(Some("a"))),
            (joined("x", "a, a"), Ok(Some("a"))),
            (joined("x", "a,"), Ok(Some("a"))),
            (joined("x", " , "), Ok(None)),
            (joined("y", "a"), Ok(None)),
            (raw(&[("x", b"a"), ("x", b"b")]), Err(())),
            (raw(&[("x", b"a,b")]), Err(())),
            (joined("x", "a,b"), Err(())),
            (raw(&[("x", b"\xff")]), Err(())),
        ] {
            assert_eq!(Headers::of(&http).single("x", None).map_err(drop), expected, "{http:?}");
        }
    }

    #[test]
    fn a_scheme_picks_its_own() {
        let find = |value: &str| {
            let http = joined("authorization", value);
            let found = Headers::of(&http).single("Authorization", Some("License"));
            found.map(|found| found.map(str::to_owned)).map_err(drop)
        };
        for value in ["License t", "license  t", "LICENSE t ", "Bearer b,License t", "License t, License t"] {
            assert_eq!(find(value), Ok(Some("t".to_owned())), "{value}");
        }
        for value in ["", "License", "License ", "Licenset", "t", "Bearer t"] {
            assert_eq!(find(value), Ok(None), "{value}");
        }
        assert_eq!(find("License t,License u"), Err(()));
    }

    #[test]
    fn what_is_not_told_is_missing() {
        assert!(Headers::of(&HttpRequest::default()).are_missing());
        assert!(Headers::of(&raw(&[])).are_missing());
        assert!(!Headers::of(&joined("x", "")).are_missing());
    }
}
