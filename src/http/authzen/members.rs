//! Members of JSON objects, taken out one by one, each as what it must be.
//!
//! Refuses to take one kind of value for another, `null` for a member that is absent among them.

use serde_json::{Map, Value};

use crate::http::malformed::Malformed;

/// The members of an object that were not taken yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Members(pub(super) Map<String, Value>);

impl Members {
    /// A member that may be absent.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        self.0.remove(name).map(read).transpose().map_err(|malformed| malformed.within(name))
    }

    /// A member that may not.
    pub(super) fn need<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        self.take(name, read)?.ok_or_else(|| Malformed::at(name, "is missing"))
    }

    /// What nobody took, in its order.
    pub(super) fn rest(mut self) -> Map<String, Value> {
        self.0.sort_keys();
        self.0
    }
}

pub(super) fn text(value: Value) -> Result<String, Malformed> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(Malformed::new("must be a string")),
    }
}

pub(super) fn flag(value: Value) -> Result<bool, Malformed> {
    value.as_bool().ok_or_else(|| Malformed::new("must be `true` or `false`"))
}

pub(super) fn number(value: Value) -> Result<f64, Malformed> {
    value.as_f64().ok_or_else(|| Malformed::new("must be a number"))
}

/// A number of things.
pub(super) fn count(value: Value) -> Result<usize, Malformed> {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| Malformed::new("must be an integer, zero or more"))
}

pub(super) fn object(value: Value) -> Result<Members, Malformed> {
    match value {
        Value::Object(members) => Ok(Members(members)),
        _ => Err(Malformed::new("must be an object")),
    }
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, Malformed> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(Malformed::new("must be a list")),
    }
}

pub(super) fn texts(value: Value) -> Result<Vec<String>, Malformed> {
    let items = list(value)?.into_iter().enumerate();
    items
        .map(|(index, item)| text(item).map_err(|malformed| malformed.within(&format!("[{index}]"))))
        .collect()
}
