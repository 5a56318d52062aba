//! Amounts that are added up exactly: whole millionths.
//!
//! Sums of binary fractions drift, and a quota must never be over by the drift. Refuses amounts
//! that are negative or not finite; what is less than a millionth counts as one.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

/// An amount of a metric, in millionths. Below zero only as a correction of usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount(i128);

const MILLION: f64 = 1e6;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// One.
    pub const ONE: Self = Self(1_000_000);

    /// So many millionths.
    pub const fn of_millionths(millionths: i128) -> Self {
        Self(millionths)
    }

    /// The millionths.
    pub const fn millionths(self) -> i128 {
        self.0
    }

    /// A whole number.
    pub fn whole(number: u64) -> Self {
        Self(i128::from(number) * 1_000_000)
    }

    /// An amount that is used: to the nearest millionth, and at least one where it is not zero.
    /// `None` where the number is negative or not finite.
    pub fn used(number: f64) -> Option<Self> {
        let amount = Self::nearest(number)?;
        Some(if number > 0.0 { amount.max(Self(1)) } else { amount })
    }

    /// A limit: to the nearest millionth. `None` where the number is negative or not finite.
    pub fn limit(number: f64) -> Option<Self> {
        Self::nearest(number)
    }

    #[allow(clippy::cast_possible_truncation, reason = "what is too large for the type becomes its largest")]
    fn nearest(number: f64) -> Option<Self> {
        (number.is_finite() && number >= 0.0).then(|| Self((number * MILLION).round() as i128))
    }

    /// The number, for answers and reports.
    pub fn to_f64(self) -> f64 {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        // Apart, so that whole numbers stay whole as long as a double can hold them.
        whole as f64 + rest as f64 / MILLION
    }

    /// A share of it, rounded down.
    #[must_use]
    pub fn divided_by(self, parts: u32) -> Self {
        Self(self.0 / i128::from(parts.max(1)))
    }

    /// As much of it as is a whole number of portions.
    #[must_use]
    pub fn in_portions_of(self, portion: Self) -> Self {
        Self(self.0 - self.0 % portion.0.max(1))
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Amount {
    /// The number in decimal, without zeros behind the last digit that matters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{rest:06}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_add_up_exactly() {
        let tenth = Amount::used(0.1).unwrap();
        let sum: Amount = (0..10).map(|_| tenth).sum();
        assert_eq!(sum, Amount::ONE);
        assert_eq!(Amount::used(0.1).unwrap() + Amount::used(0.2).unwrap(), Amount::limit(0.3).unwrap());
    }

    #[test]
    fn what_is_used_is_never_counted_as_nothing() {
        assert_eq!(Amount::used(1e-9).unwrap().millionths(), 1);
        assert_eq!(Amount::used(0.0).unwrap(), Amount::ZERO);
        for number in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Amount::used(number), None);
        }
        assert!(Amount::used(f64::MAX).unwrap().is_positive());
    }

    #[test]
    fn reads_as_a_number() {
        let shown = |number| Amount::used(number).unwrap().to_string();
        assert_eq!([shown(3.0), shown(0.25), shown(1_000_000.000_001)], ["3", "0.25", "1000000.000001"]);
        assert_eq!((-Amount::used(1.5).unwrap()).to_string(), "-1.5");
        assert_eq!(Amount::whole(9_007_199_254_740_992).to_f64(), 9_007_199_254_740_992.0);
        assert_eq!(Amount::used(0.3).unwrap().to_f64(), 0.3);
    }
}
