//! Text from outside, made fit to be shown: on a terminal, and beside words of our own.
//!
//! Refuses to drop anything: what would steer a terminal is spelled out.

use std::borrow::Cow;

/// The control characters that lay out what Tollgate itself writes.
pub const LAYOUT: [char; 2] = ['\n', '\t'];

/// The text with control characters spelled out, but for those of `layout`, and so with those that turn
/// the direction of writing (Unicode Technical Report 36, section 3.2): they show what is not there.
pub fn printable<'a>(text: &'a str, layout: &[char]) -> Cow<'a, str> {
    spell(text, layout, |spelled, c| spelled.extend(c.escape_unicode()))
}

/// The same for a text that is JSON, which it stays: characters are spelled out as JSON does.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    // All that steers has four hexadecimal digits.
    spell(json, &LAYOUT, |spelled, c| spelled.push_str(&format!("\\u{:04x}", u32::from(c))))
}

fn spell<'a>(text: &'a str, layout: &[char], spell: impl Fn(&mut String, char)) -> Cow<'a, str> {
    let steers = |c: char| {
        (c.is_control() && !layout.contains(&c))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.into();
    }
    let mut spelled = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) { spell(&mut spelled, c) } else { spelled.push(c) }
    }
    spelled.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_and_steers_no_terminal() {
        let value = serde_json::json!({ "user": "\u{9b}2Jana\n\u{202e}" });
        for text in [value.to_string(), format!("{value:#}")] {
            let shown = printable_json(&text);
            assert!(!shown.contains(['\u{9b}', '\u{202e}']), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
