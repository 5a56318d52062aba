//! What the command line writes: to standard output for the reader, to standard error for errors.
//! Refuses to fail when nobody reads.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use std::io::IsTerminal;

/// Writes text and a line end.
pub(super) fn line(text: &str) {
    // A reader that went away (`| head`) is no reason to fail.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Writes a value as indented JSON.
pub(super) fn json(value: &serde_json::Value) {
    line(&format!("{value:#}"));
}

/// Writes an error.
pub(super) fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "error: {text}");
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
        table.add_row(row);
    }
    line(&table.trim_fmt());
}
