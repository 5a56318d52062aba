//! The path of a request, read as whoever serves it must read it, and compared with routes.
//!
//! Refuses every path that two programs might read in two ways: what is decided here is what is served there.
//! Never a URL parser: to one of those, `//host/x` has an authority.

use crate::config::envoy::{Field, Route, Segment};

/// The segments of a path, decoded once; no query.
pub(super) fn parse(target: &str) -> Result<Vec<String>, &'static str> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let path = path.strip_prefix('/').ok_or("it does not begin with `/`")?;
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/').map(segment).collect()
}

fn segment(text: &str) -> Result<String, &'static str> {
    if !text.is_ascii() || text.contains('#') {
        return Err("it has a character that must be percent-encoded");
    }
    let decoded = String::from_utf8(decode(text)?).map_err(|_| "it is not UTF-8 once it is decoded")?;
    match decoded.as_str() {
        "" => Err("it has an empty segment"),
        "." | ".." => Err("it has a relative segment"),
        _ if decoded.contains(['/', '\\']) => Err("it has a separator within a segment"),
        _ if decoded.contains(';') => Err("it has a `;`, which some servers cut at"),
        _ if decoded.contains(char::is_control) => Err("it has a control character"),
        _ => Ok(decoded),
    }
}

/// The bytes of a percent-encoded text.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if text.split('%').skip(1).all(is_escape) {
        return Ok(percent_encoding::percent_decode_str(text).collect());
    }
    Err("it has a `%` that begins no escape")
}

/// What a route says about a request.
pub(super) struct Said<'a> {
    route: &'a Route,
    taken: Vec<(Field, String)>,
}

impl Said<'_> {
    /// What it says of a field, if it does.
    pub(super) fn of(&self, field: Field) -> Option<&str> {
        let taken = self.taken.iter().find(|(of, _)| *of == field).map(|(_, text)| text.as_str());
        taken.or_else(|| self.route.constant(field))
    }
}

/// The first route that a request matches.
pub(super) fn route<'a>(routes: &'a [Route], method: &str, segments: &[String]) -> Option<Said<'a>> {
    routes.iter().filter(|route| is_about(route, method)).find_map(|route| {
        let taken = take(route.path.segments(), segments)?;
        Some(Said { route, taken })
    })
}

fn is_about(route: &Route, method: &str) -> bool {
    route.methods.is_empty() || route.methods.iter().any(|of| of == method)
}

/// The fields that a template takes from a path; none where it is about others.
fn take(template: &[Segment], segments: &[String]) -> Option<Vec<(Field, String)>> {
    let mut taken = Vec::new();
    let mut rest = segments;
    for part in template {
        let (first, behind) = rest.split_first()?;
        match part {
            Segment::Literal(text) if text == first => {}
            Segment::Literal(_) => return None,
            Segment::One(field) => taken.extend(field.map(|field| (field, first.clone()))),
            Segment::Rest(field) => {
                taken.extend(field.map(|field| (field, rest.join("/"))));
                return Some(taken);
            }
        }
        rest = behind;
    }
    rest.is_empty().then_some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::Document;

    fn routes(text: &str) -> Vec<Route> {
        Document::parse("routes.yaml", text).unwrap().decode().unwrap()
    }

    fn dataset(routes: &[Route], method: &str, path: &str) -> Option<String> {
        route(routes, method, &parse(path).unwrap())?.of(Field::Dataset).map(str::to_owned)
    }

    #[test]
    fn reads_each_path_in_one_way() {
        for (target, expected) in [
            ("/", &[][..]),
            ("/a/b", &["a", "b"]),
            ("/a?b/../c", &["a"]),
            ("/a?b?c", &["a"]),
            ("/%64eny", &["deny"]),
            ("/%2564eny", &["%64eny"]),
            ("/caf%C3%A9", &["café"]),
            ("/a%3Fb", &["a?b"]),
            ("/...", &["..."]),
            ("/a+b", &["a+b"]),
        ] {
            assert_eq!(parse(target).unwrap(), expected, "{target}");
        }
    }

    #[test]
    fn refuses_paths_with_two_readings() {
        for target in [
            "",
            "a",
            "*",
            "?a",
            "http://host/a",
            "//a",
            "/a//b",
            "/a/",
            "/./a",
            "/a/..",
            "/%2e%2e/a",
            "/%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a;x=1",
            "/a%3bx",
            "/.;/a",
            "/a%00",
            "/a\u{0}",
            "/a%0d%0ab",
            "/a%7f",
            "/a%c2%85",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%2%66",
            "/%ff",
            "/%c0%ae",
            "/café",
            "/a#b",
            "/a%",
        ] {
            assert!(parse(target).is_err(), "{target:?}");
        }
    }

    #[test]
    fn the_first_route_that_matches_says_what_it_says() {
        let routes = routes(
            "- {methods: [GET], path: '/v1/datasets/{dataset...}', action: read}\n\
             - {path: '/v1/{project}/all', dataset: sales, action: query}\n\
             - {path: '/{_}/{_...}'}\n",
        );
        assert_eq!(dataset(&routes, "GET", "/v1/datasets/sales/eu"), Some("sales/eu".to_owned()));
        assert_eq!(dataset(&routes, "POST", "/v1/datasets/sales/eu"), None);
        assert_eq!(dataset(&routes, "POST", "/v1/apollo/all?x"), Some("sales".to_owned()));
        let said = route(&routes, "PUT", &parse("/v1/apollo/all").unwrap()).unwrap();
        assert_eq!((said.of(Field::Project), said.of(Field::Action)), (Some("apollo"), Some("query")));
        assert_eq!(said.of(Field::Region), None);
        for path in ["/", "/v1"] {
            assert!(route(&routes, "GET", &parse(path).unwrap()).is_none(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn segments_are_what_was_encoded(segments in prop::collection::vec("[^/\\\\;\\p{Cc}]{1,8}", 1..5)) {
            prop_assume!(segments.iter().all(|segment| segment != "." && segment != ".."));
            let encoded = segments.iter().map(|segment| {
                percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
            });
            let path = format!("/{}?q=/../x", encoded.collect::<Vec<_>>().join("/"));
            prop_assert_eq!(parse(&path).unwrap(), segments);
        }

        #[test]
        fn no_segment_that_is_read_has_a_second_reading(target in "/[a%./;\\\\2eEfF5cC\u{0}?]{0,24}") {
            if let Ok(segments) = parse(&target) {
                for segment in segments {
                    prop_assert!(!segment.contains(['/', '\\', ';', '\0']) && !segment.is_empty());
                    prop_assert!(segment != "." && segment != "..");
                }
            }
        }
    }
}
