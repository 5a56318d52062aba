//! The record of one act of administration, a line among those of decisions.
//!
//! Copies only named fields, so that no token comes in; refuses texts without end.

use serde::Serialize;

use super::record::{Micros, Shown};
use super::redact::Text;
use crate::domain::DecisionId;
use crate::domain::standing::Target;
use crate::domain::time::Timestamp;

/// The longest text of a line, in bytes.
const MAX_TEXT: usize = 1024;

/// What an act leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct ActRecord<'a> {
    /// The id of the record.
    pub id: DecisionId,
    /// When.
    pub time: Timestamp,
    /// The gate that did it.
    pub gate: &'a str,
    /// Who asked for it.
    pub operator: &'a str,
    /// What: the name of the call.
    pub act: &'static str,
    /// To which licenses.
    pub target: &'a Target,
    /// Why.
    pub reason: &'a str,
    /// `done`, `refused`, `forbidden`, or `unknown` where the state did not answer.
    pub outcome: &'static str,
    /// What was wrong.
    pub error: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    act_id: Shown<DecisionId>,
    time: Micros,
    gate: Text<'a>,
    operator: Text<'a>,
    act: &'static str,
    target: TargetLine<'a>,
    reason: Text<'a>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Text<'a>>,
}

#[derive(Serialize)]
struct TargetLine<'a> {
    kind: &'static str,
    issuer: Text<'a>,
    id: Text<'a>,
}

impl ActRecord<'_> {
    /// Appends the record to `out` as one line of JSON, newline included.
    ///
    /// # Errors
    /// Only when JSON cannot be made of it.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let text = |text| Text { text, max_bytes: MAX_TEXT };
        let line = Line {
            act_id: Shown(self.id),
            time: Micros(self.time),
            gate: text(self.gate),
            operator: text(self.operator),
            act: self.act,
            target: TargetLine {
                kind: self.target.which.kind(),
                issuer: text(&self.target.issuer),
                id: text(self.target.which.id()),
            },
            reason: text(self.reason),
            outcome: self.outcome,
            error: self.error.map(text),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
        Ok(())
    }
}
