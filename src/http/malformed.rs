//! What is wrong with a request, and where in it.
//!
//! Refuses to repeat values, and tokens where names belong: a token in the wrong place does not come back
//! in the words about it.

use std::borrow::Cow;
use std::fmt;

use crate::audit::redact;

/// The longest name of a member that is repeated, in bytes.
const MAX_NAME: usize = 64;
/// The longest path that is repeated, in bytes.
const MAX_PATH: usize = 512;

/// A part of a request that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The path of the part, such as `subject.id`; empty for the whole.
    field: String,
    problem: Cow<'static, str>,
}

impl Malformed {
    /// The whole is not as it must be.
    pub(super) fn new(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { field: String::new(), problem: problem.into() }
    }

    /// The part at `field` is not.
    pub(super) fn at(field: impl Into<String>, problem: impl Into<Cow<'static, str>>) -> Self {
        let field = field.into();
        // How serde_path_to_error calls the whole.
        let field = if field == "." { String::new() } else { redact::fit(&field, MAX_PATH).into_owned() };
        Self { field, problem: problem.into() }
    }

    /// The same, seen from the object or list that holds the part.
    pub(super) fn within(self, holder: &str) -> Self {
        let joint = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        Self { field: format!("{}{joint}{}", Self::shown(holder), self.field), ..self }
    }

    /// The path of the part; empty for the whole.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// A name as far as it is repeated.
    pub(super) fn shown(name: &str) -> Cow<'_, str> {
        redact::fit(name, MAX_NAME)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, problem } = self;
        if field.is_empty() { write!(f, "the body {problem}") } else { write!(f, "`{field}` {problem}") }
    }
}
