//! A moment as people say it on the command line: a time, or a span from now.
//!
//! Refuses a time without an offset, which would be another one elsewhere.

use std::str::FromStr;
use std::time::SystemTime;

use jiff::Span;
use jiff::tz::TimeZone;

use super::CliError;
use crate::domain::time::Timestamp;

/// A moment.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Moment {
    /// This one.
    At(Timestamp),
    /// So long from now, by the calendar of UTC.
    FromNow(Span),
}

/// The text says no moment.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "`{0}` is neither a time, such as `2027-01-31T00:00:00Z`, nor a span from now, such as `30d`, `P30D` \
     or `30d ago`"
)]
pub(in crate::cli) struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        text.parse::<Span>().map(Self::FromNow).map_err(|_| MomentError(text.to_owned()))
    }
}

impl Moment {
    /// The moment, for a message.
    pub(in crate::cli) fn of(
        moment: Option<&Self>,
        now: Timestamp,
    ) -> Result<Option<prost_types::Timestamp>, CliError> {
        let Some(moment) = moment else { return Ok(None) };
        let at = moment
            .resolve(now)
            .map_err(|error| CliError::Input(format!("the time is out of range: {error}")))?;
        Ok(Some(SystemTime::from(at).into()))
    }

    fn resolve(&self, now: Timestamp) -> Result<Timestamp, jiff::Error> {
        match self {
            Self::At(at) => Ok(*at),
            Self::FromNow(span) => Ok(now.to_zoned(TimeZone::UTC).checked_add(*span)?.timestamp()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> String {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        text.parse::<Moment>().unwrap().resolve(now).unwrap().to_string()
    }

    #[test]
    fn a_time_or_a_span_from_now() {
        for (text, moment) in [
            ("2027-01-31T00:00:00Z", "2027-01-31T00:00:00Z"),
            ("2027-01-31T01:00:00+01:00", "2027-01-31T00:00:00Z"),
            ("30d", "2026-03-02T12:00:00Z"),
            ("P1M", "2026-02-28T12:00:00Z"),
            ("12h ago", "2026-01-31T00:00:00Z"),
            ("-P1D", "2026-01-30T12:00:00Z"),
        ] {
            assert_eq!(resolved(text), moment, "{text}");
        }
        for text in ["", "soon", "30", "2027-01-31T00:00:00"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        assert!(Moment::of(Some(&"9999y".parse().unwrap()), now).is_err());
    }

    #[test]
    fn a_message_has_the_same_moment() {
        let at = Some(Moment::At("2027-01-31T00:00:00.5Z".parse().unwrap()));
        let message = Moment::of(at.as_ref(), Timestamp::UNIX_EPOCH).unwrap().unwrap();
        assert_eq!((message.seconds, message.nanos), (1_801_353_600, 500_000_000));
    }
}
