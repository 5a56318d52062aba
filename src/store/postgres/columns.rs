//! How values are written into columns, and read back.
//!
//! Refuses to guess: what this version never wrote is damage. Text keeps the order of its bytes.

use std::borrow::Cow;
use std::num::IntErrorKind;

use deadpool_postgres::tokio_postgres::Row;
use deadpool_postgres::tokio_postgres::types::FromSql;

use super::faults::{Fault, words};
use crate::domain::amount::Amount;
use crate::domain::time::Timestamp;

/// Text as it is stored. PostgreSQL has no text with the character 0, so that becomes two others, and
/// the first of these two others, which keeps texts apart and in order.
pub(super) fn stored(text: &str) -> Cow<'_, str> {
    match text.contains(['\0', '\u{1}']) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}")),
    }
}

/// What [`stored`] was given.
fn restored(text: String) -> String {
    match text.contains('\u{1}') {
        false => text,
        // In this order, since what the first puts in has no character 1 behind it.
        true => text.replace("\u{1}\u{1}", "\0").replace("\u{1}\u{2}", "\u{1}"),
    }
}

/// A moment as it is stored: microseconds.
pub(super) fn micros(moment: Timestamp) -> i64 {
    moment.as_microsecond()
}

/// A number that only grows, as it is stored. What does not fit is not reached in the life of a database.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An amount as it is sent: its digits.
pub(super) fn digits(amount: Amount) -> String {
    amount.millionths().to_string()
}

/// A column of any type.
pub(super) fn column<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T, Fault> {
    row.try_get(name).map_err(|error| Fault::damaged(words(&error)))
}

/// A column of text.
pub(super) fn text(row: &Row, name: &str) -> Result<String, Fault> {
    column(row, name).map(restored)
}

/// A column of microseconds.
pub(super) fn moment(row: &Row, name: &str) -> Result<Timestamp, Fault> {
    let micros: i64 = column(row, name)?;
    let (second, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    // Not of microseconds at once, which knows none within the last second of all.
    let nanos = i32::try_from(rest * 1000).unwrap_or_default();
    Timestamp::new(second, nanos).map_err(|error| Fault::damaged(format!("`{name}`: {error}")))
}

/// A column of a number that only grows.
pub(super) fn counted(row: &Row, name: &str) -> Result<u64, Fault> {
    let number: i64 = column(row, name)?;
    u64::try_from(number).map_err(|error| Fault::damaged(format!("`{name}`: {error}")))
}

/// A column of the digits of an amount. What is too large for the type becomes its largest.
pub(super) fn amount(row: &Row, name: &str) -> Result<Amount, Fault> {
    let digits: &str = column(row, name)?;
    let millionths = digits.parse::<i128>().or_else(|error| match error.kind() {
        IntErrorKind::PosOverflow => Ok(i128::MAX),
        IntErrorKind::NegOverflow => Ok(i128::MIN),
        _ => Err(Fault::damaged(format!("`{name}` is not an amount: {error}"))),
    });
    millionths.map(Amount::of_millionths)
}

/// A column of a hash.
pub(super) fn hash(row: &Row, name: &str) -> Result<[u8; 32], Fault> {
    let bytes: &[u8] = column(row, name)?;
    bytes.try_into().map_err(|_| Fault::damaged(format!("`{name}` is not a hash")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_kept_and_its_order_too() {
        let pieces = ["", "\0", "\u{1}", "\u{2}", "a", "\u{10FFFF}"];
        let mut texts: Vec<String> = Vec::new();
        for a in pieces {
            for b in pieces {
                texts.extend(pieces.map(|c| format!("{a}{b}{c}")));
            }
        }
        for one in &texts {
            assert!(!stored(one).contains('\0'));
            assert_eq!(&restored(stored(one).into_owned()), one);
            for other in &texts {
                assert_eq!(stored(one).cmp(&stored(other)), one.cmp(other), "{one:?} {other:?}");
            }
        }
    }
}
