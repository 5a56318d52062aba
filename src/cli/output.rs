//! What the command line writes: to standard output for the reader, to standard error for errors.
//! Refuses to fail when nobody reads, and to let a file or a license steer the reader's terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};

/// Writes text, which may have several lines, and a line end.
pub(super) fn line(text: &str) {
    // A reader that went away (`| head`) is no reason to fail.
    let _ = writeln!(std::io::stdout().lock(), "{}", harmless(text, &LAYOUT));
}

/// Writes what something is and what it says, on one line.
pub(super) fn field(what: &str, says: &str) {
    line(&format!("{what:<14}{}", harmless(says, &[])));
}

/// Writes a value as indented JSON.
pub(super) fn json(value: &serde_json::Value) {
    line(&format!("{value:#}"));
}

/// Writes an error.
pub(super) fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "error: {}", harmless(text, &LAYOUT));
}

/// Writes a table: with lines on a terminal, in plain columns elsewhere.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    if std::io::stdout().is_terminal() {
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING);
    }
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| harmless(cell, &[])));
    }
    line(&table.trim_fmt());
}

/// The control characters that lay out what the command itself writes.
const LAYOUT: [char; 2] = ['\n', '\t'];

/// The text with control characters spelled out, but for those of `layout`, and so with those that turn
/// the direction of writing (Unicode Technical Report 36, section 3.2): they show what is not there.
fn harmless<'a>(text: &'a str, layout: &[char]) -> Cow<'a, str> {
    let steers = |c: char| {
        (c.is_control() && !layout.contains(&c))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.into();
    }
    let mut spelled = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) { spelled.extend(c.escape_unicode()) } else { spelled.push(c) }
    }
    spelled.into()
}
