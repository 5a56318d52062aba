//! Text from outside, made fit to be shown: on a terminal, and beside words of our own.
//!
//! Refuses to drop anything: what would steer a terminal is spelled out.

use std::borrow::Cow;

/// The control characters that lay out what Tollgate itself writes.
pub const LAYOUT: [char; 2] = ['\n', '\t'];

/// The text with control characters spelled out, but for those of `layout`, and so with those that turn
/// the direction of writing (Unicode Technical Report 36, section 3.2): they show what is not there.
pub fn printable<'a>(text: &'a str, layout: &[char]) -> Cow<'a, str> {
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
