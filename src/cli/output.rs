//! What the command line writes: to standard output for the reader, to standard error for errors.
//! Refuses to fail when nobody reads, and to let a file or a license steer the reader's terminal.

use std::io::{self, ErrorKind, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::CliError;
use crate::document::printable::{LAYOUT, printable, printable_json};

/// Writes text, which may have several lines, and a line end.
pub(super) fn line(text: &str) {
    // A reader that went away (`| head`) is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{}", printable(text, &LAYOUT));
}

/// Writes what something is and what it says, on one line.
pub(super) fn field(what: &str, says: &str) {
    line(&format!("{what:<14}{}", printable(says, &[])));
}

/// Writes a value as indented JSON.
pub(super) fn json(value: &serde_json::Value) {
    // A reader that went away is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{}", printable_json(&format!("{value:#}")));
}

/// Writes an error.
pub(super) fn error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "error: {}", printable(text, &LAYOUT));
}

/// Writes what is not wrong, but worth a look.
pub(super) fn warning(text: &str) {
    let _ = writeln!(io::stderr().lock(), "warning: {}", printable(text, &LAYOUT));
}

/// Writes a table: with lines on a terminal, in plain columns elsewhere.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    if io::stdout().is_terminal() {
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING);
    }
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell, &[])));
    }
    line(&table.trim_fmt());
}

/// Whether anybody reads what was written. A reader that went away (`| head`) is no reason to fail; a
/// disk that is full is.
pub(super) fn is_read(written: io::Result<()>) -> Result<bool, CliError> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::Failed(format!("standard output: {error}"))),
    }
}
