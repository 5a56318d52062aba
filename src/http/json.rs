//! JSON as I-JSON (RFC 7493) has it, so that no two readers read two things.
//!
//! Refuses members that are given twice, integers that a double does not hold, nesting without end, and
//! a whole that is not an object. Members are sorted: their order says nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::malformed::Malformed;

/// The deepest nesting of objects and lists.
const MAX_DEPTH: usize = 32;
/// Up to here every integer is a double; beyond, a double may stand for several.
const MAX_INTEGER: i64 = 1 << 53;

/// Reads an object.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn parse(text: &[u8]) -> Result<Map<String, Value>, Malformed> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let value =
        Strict { depth: 0 }.deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let value = value.and_then(|value| json.end().map(|()| value));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Malformed::new("must be a JSON object")),
        Err(error) if error.is_data() => {
            Err(Malformed::at(track.path().to_string(), without_place(&error.to_string())))
        }
        Err(error) => Err(Malformed::new(format!("is not JSON: {error}"))),
    }
}

/// Where in the text it was is of no use beside the path.
fn without_place(words: &str) -> String {
    words.split(" at line ").next().unwrap_or(words).to_owned()
}

/// A value, this deep within others.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn within<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("is nested deeper than 32 levels"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        if (-MAX_INTEGER..=MAX_INTEGER).contains(&number) {
            return Ok(number.into());
        }
        Err(E::custom("is an integer beyond 2^53, which not every reader reads; write it as a string"))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// A whole number is an integer, however it is written.
    #[allow(clippy::cast_possible_truncation, reason = "whole and at most 2^53 in size")]
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        if number.fract() == 0.0 && number.abs() <= MAX_INTEGER as f64 {
            return Ok(Value::from(number as i64));
        }
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("must be finite"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.within()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let below = self.within()?;
        let mut sorted = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(below)?;
            if sorted.contains_key(&name) {
                return Err(A::Error::custom(format!("has the member `{}` twice", Malformed::shown(&name))));
            }
            sorted.insert(name, value);
        }
        Ok(Value::Object(sorted.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_json_says() {
        let text = r#" {"b": [1, -2.5, 3.0, 1e3, -0.0, 1e300, true, null, "\ud83d\ude00"], "a": {"z": {}, "y": []}} "#;
        let read = parse(text.as_bytes()).unwrap();
        let expected = json!({"a": {"y": [], "z": {}}, "b": [1, -2.5, 3, 1000, 0, 1e300, true, null, "😀"]});
        assert_eq!(Value::Object(read).to_string(), expected.to_string());
        assert_eq!(parse(b"{}").unwrap(), Map::new());
    }

    #[test]
    fn refuses_what_may_be_read_two_ways() {
        assert_eq!(refused(r#"{"a": 1, "a": 1}"#), "the body has the member `a` twice");
        assert_eq!(refused(r#"{"a": [{"b": {"c": 1, "\u0063": 2}}]}"#), "`a[0].b` has the member `c` twice");
        assert!(refused(r#"{"a": {"b": 9007199254740993}}"#).starts_with("`a.b` is an integer beyond 2^53"));
        assert!(refused(r#"{"a": -9007199254740993}"#).starts_with("`a` is an integer beyond 2^53"));
        for text in ["", " ", "nul", "{", "{}{}", "{} x", "{\"a\":}", "{'a':1}", "{\"a\":1,}", "{\"a\":NaN}"]
        {
            assert!(refused(text).starts_with("the body is not JSON: "), "{text}: {}", refused(text));
        }
        for text in
            [r#"{"a":"\ud800"}"#, r#"{"a":"\udc00x"}"#, r#"{"a":1e999}"#, r#"{"a":01}"#, "{\"a\":\"\n\"}"]
        {
            assert!(refused(text).starts_with("the body is not JSON: "), "{text}: {}", refused(text));
        }
        for text in ["null", "1", "[]", "\"a\"", "[{}]"] {
            assert_eq!(refused(text), "the body must be a JSON object");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(b"\xef\xbb\xbf{}").is_err());
    }

    #[test]
    fn nesting_has_an_end() {
        let nested =
            |depth: usize| format!("{}{}", "{\"a\":".repeat(depth), "1".to_owned() + &"}".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert!(refused(&nested(33)).ends_with("is nested deeper than 32 levels"));
        assert!(refused(&format!("{{\"a\":{}", "[".repeat(1_000_000))).contains("nested deeper"));
    }
}
