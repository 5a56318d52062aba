//! Text from outside, made fit to be recorded and shown: bounded, and without tokens.
//!
//! Refuses to let through anything that looks like a JWS, even in a field where no token
//! belongs, and even when only its beginning would fit.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// What stands where a token stood.
pub(super) const REDACTED: &str = "[redacted token]";

/// How every JWS begins: base64url of `{"`.
const TOKEN_PREFIX: &str = "eyJ";

/// A text and the most bytes of it that a record may hold.
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) max_bytes: usize,
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&fit(self.text, self.max_bytes))
    }
}

/// `text` without tokens, cut with an ellipsis behind at most `max_bytes` bytes of it.
pub fn fit(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.contains(TOKEN_PREFIX) {
        let (clean, cut) = redact(text, max_bytes);
        let kept = clip(&clean, max_bytes);
        let whole = !cut && kept.len() == clean.len();
        return Cow::Owned(if whole { clean } else { format!("{kept}…") });
    }
    let kept = clip(text, max_bytes);
    if kept.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(format!("{kept}…")) }
}

/// Replaces tokens until the result is over `max_bytes`; says whether text was left unread.
///
/// A token is a run of base64url characters and dots that holds two dots, from where it begins
/// with `eyJ`. The whole run goes: the five parts of a JWE too.
fn redact(text: &str, max_bytes: usize) -> (String, bool) {
    let mut clean = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(TOKEN_PREFIX) {
        clean.push_str(before);
        if clean.len() > max_bytes {
            return (clean, true);
        }
        let end = after.find(|c: char| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
        let (run, behind) = after.split_at_checked(end.unwrap_or(after.len())).unwrap_or((after, ""));
        if run.bytes().filter(|byte| *byte == b'.').count() >= 2 {
            clean.push_str(REDACTED);
        } else {
            clean.push_str(TOKEN_PREFIX);
            clean.push_str(run);
        }
        rest = behind;
    }
    clean.push_str(rest);
    (clean, false)
}

/// The longest prefix of at most `max_bytes` bytes that ends between two characters.
fn clip(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhY21lIn0.c2lnbmF0dXJlLW9mLXRva2Vu";

    #[test]
    fn tokens_are_replaced_wherever_they_stand() {
        for (text, expected) in [
            (TOKEN.to_owned(), REDACTED.to_owned()),
            (format!("Bearer {TOKEN}"), format!("Bearer {REDACTED}")),
            (format!("a {TOKEN} b {TOKEN}, c"), format!("a {REDACTED} b {REDACTED}, c")),
            (format!("license_{TOKEN}"), format!("license_{REDACTED}")),
            (format!("eyJx {TOKEN}"), format!("eyJx {REDACTED}")),
            (
                "unsigned eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0. end".to_owned(),
                format!("unsigned {REDACTED} end"),
            ),
            ("jwe eyJhbGciOiJkaXIifQ..aXY.Y3Q.dGFn".to_owned(), format!("jwe {REDACTED}")),
        ] {
            assert_eq!(fit(&text, 1024), expected);
        }
    }

    #[test]
    fn other_texts_are_left_as_they_are() {
        for text in ["", "eyJ", "eyJhbGci", "eyJhbGci.x", "sales/eu/orders", "ключ eyJ", "a.b.c"] {
            assert_eq!(fit(text, 1024), text);
            assert!(text.contains(TOKEN_PREFIX) || matches!(fit(text, 1024), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abcdef…");
        assert_eq!(fit("aéé", 4), "aé…");
        assert_eq!(fit("éé eyJ", 3), "é…");
        assert_eq!(fit(&format!("{TOKEN} behind"), 20), format!("{REDACTED} beh…"));
    }

    #[test]
    fn a_token_over_the_edge_is_replaced_not_cut() {
        let text = format!("{} {TOKEN}", "x".repeat(1000));
        let fitted = fit(&text, 1024);
        assert!(fitted.contains(REDACTED) && !fitted.contains(TOKEN_PREFIX), "{fitted}");
        let beyond = format!("{} {TOKEN}", "x".repeat(1024));
        assert_eq!(fit(&beyond, 1024), format!("{}…", "x".repeat(1024)));
    }

    proptest! {
        #[test]
        fn no_token_passes_and_the_bound_holds(before in ".{0,40}", after in "[^A-Za-z0-9_.-].{0,40}", max in 0usize..200) {
            let fitted = fit(&format!("{before}{TOKEN}{after}"), max).into_owned();
            prop_assert!(fitted.len() <= max + '…'.len_utf8());
            prop_assert!(!fitted.contains("eyJhbGciOiJFZERTQSJ9"));
            prop_assert!(!fitted.contains("c2lnbmF0dXJl"));
        }
    }
}
