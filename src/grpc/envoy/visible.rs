//! Text for headers: visible ASCII and nothing else, whatever a license or a policy says.
//!
//! Refuses line ends above all: a text that had one would be two headers.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

/// What gRPC encodes in a message: all but the visible and the space.
const IN_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');
/// Without spaces too, since those at the ends would be lost.
const IN_HEADER: &AsciiSet = &IN_MESSAGE.add(b' ');

/// The text, percent-encoded where it is not visible.
pub(in crate::grpc) fn text(text: &str) -> String {
    utf8_percent_encode(text, IN_HEADER).to_string()
}

/// The text as `grpc-message` has it.
pub(in crate::grpc) fn grpc_message(text: &str) -> String {
    utf8_percent_encode(text, IN_MESSAGE).to_string()
}

/// The value as JSON on one line, in ASCII. None where it has no JSON.
pub(in crate::grpc) fn json(value: &impl Serialize) -> Option<String> {
    let text = serde_json::to_string(value).ok()?;
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => ascii.push(c),
            // JSON has other characters in strings only, and there they may be escaped.
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Some(ascii)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodes_what_is_not_visible() {
        assert_eq!(text("license-1"), "license-1");
        assert_eq!(text(" a\r\nb%é\u{7f}"), "%20a%0D%0Ab%25%C3%A9%7F");
        assert_eq!(grpc_message("not 100 % sûr"), "not 100 %25 s%C3%BBr");
        assert_eq!(json(&"a\n\u{7f}é😀").unwrap(), r#""a\n\u007f\u00e9\ud83d\ude00""#);
    }

    proptest! {
        #[test]
        fn whatever_it_is_can_be_read_again(any in any::<String>()) {
            let header = text(&any);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(percent_encoding::percent_decode_str(&header).decode_utf8().unwrap(), any.as_str());
            let json = json(&any).unwrap();
            prop_assert!(json.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), any);
        }
    }
}
