//! Calendar windows: when the one began that a moment lies in, and when it ends.
//!
//! Days and months are those of a time zone's calendar, so a day may have 23 or 25 hours. An hour or a
//! minute that the clocks go through twice is two windows. Refuses time zones that nobody knows.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

use crate::domain::terms::QuotaWindow;
use crate::domain::time::Timestamp;

/// One window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it; `None` where it never ends.
    pub end: Option<Timestamp>,
}

/// A window cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The name is not in the IANA database.
    #[error("`{0}` is not a time zone of the IANA database, such as `Europe/Berlin`")]
    UnknownTimeZone(String),
    /// The moment is at the end of what calendars can say.
    #[error("{0} is in no window")]
    OutOfRange(Timestamp),
}

/// The time zone of that name.
///
/// # Errors
/// When nobody knows it.
pub fn time_zone(name: &str) -> Result<TimeZone, WindowError> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| WindowError::UnknownTimeZone(name.to_owned()))
}

/// The window of that kind in which `now` lies.
///
/// # Errors
/// At the end of time.
pub fn window(kind: QuotaWindow, zone: &TimeZone, now: Timestamp) -> Result<Window, WindowError> {
    let found = match kind {
        QuotaWindow::Total => Some(Window { start: Timestamp::UNIX_EPOCH, end: None }),
        QuotaWindow::Minute => of_seconds(60, zone, now),
        QuotaWindow::Hour => of_seconds(3_600, zone, now),
        QuotaWindow::Day | QuotaWindow::Month => of_calendar(kind, zone, now),
    };
    found.ok_or(WindowError::OutOfRange(now))
}

/// Windows that begin on the full minute or hour of the local clock, as it goes at that moment.
fn of_seconds(length: i64, zone: &TimeZone, now: Timestamp) -> Option<Window> {
    let offset = i64::from(zone.to_offset(now).seconds());
    let local = now.as_second().checked_add(offset)?;
    let start = Timestamp::from_second(local.div_euclid(length) * length - offset).ok()?;
    let end = start.checked_add(SignedDuration::from_secs(length)).ok()?;
    Some(Window { start, end: Some(end) })
}

/// Windows from the first moment of a day to the first moment of a later one.
fn of_calendar(kind: QuotaWindow, zone: &TimeZone, now: Timestamp) -> Option<Window> {
    let today = now.to_zoned(zone.clone()).date();
    let (first, next) = match kind {
        QuotaWindow::Month => {
            let first = today.first_of_month();
            (first, first.checked_add(1.month()).ok()?)
        }
        _ => (today, today.tomorrow().ok()?),
    };
    let begins = |date: Date| date.to_zoned(zone.clone()).ok().map(|midnight| midnight.timestamp());
    Some(Window { start: begins(first)?, end: Some(begins(next)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: QuotaWindow, zone: &str, now: &str) -> (String, String) {
        let window = window(kind, &time_zone(zone).unwrap(), now.parse().unwrap()).unwrap();
        (window.start.to_string(), window.end.unwrap().to_string())
    }

    fn pair(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn days_and_months_are_those_of_the_zone() {
        let day = at(QuotaWindow::Day, "UTC", "2026-06-15T13:14:15Z");
        assert_eq!(day, pair("2026-06-15T00:00:00Z", "2026-06-16T00:00:00Z"));
        let day = at(QuotaWindow::Day, "Europe/Berlin", "2026-06-15T23:14:15Z");
        assert_eq!(day, pair("2026-06-15T22:00:00Z", "2026-06-16T22:00:00Z"));
        let month = at(QuotaWindow::Month, "America/New_York", "2026-03-01T04:59:59Z");
        assert_eq!(month, pair("2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z"));
    }

    #[test]
    fn a_day_has_as_many_hours_as_the_clocks_give_it() {
        // Clocks go forward on 29 March and back on 25 October.
        let short = at(QuotaWindow::Day, "Europe/Berlin", "2026-03-29T10:00:00Z");
        assert_eq!(short, pair("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"));
        let long = at(QuotaWindow::Day, "Europe/Berlin", "2026-10-25T10:00:00Z");
        assert_eq!(long, pair("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"));
        // In Brazil clocks went forward at midnight: the day of 4 November 2018 began at one o'clock.
        let late = at(QuotaWindow::Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z");
        assert_eq!(late, pair("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"));
    }

    #[test]
    fn an_hour_that_comes_twice_is_two_windows() {
        let first = at(QuotaWindow::Hour, "Europe/Berlin", "2026-10-25T00:30:00Z");
        let second = at(QuotaWindow::Hour, "Europe/Berlin", "2026-10-25T01:30:00Z");
        assert_eq!(first, pair("2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"));
        assert_eq!(second, pair("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"));
        let half = at(QuotaWindow::Hour, "Asia/Kolkata", "2026-06-15T13:14:15Z");
        assert_eq!(half, pair("2026-06-15T12:30:00Z", "2026-06-15T13:30:00Z"));
        let minute = at(QuotaWindow::Minute, "UTC", "2026-06-15T13:14:15Z");
        assert_eq!(minute, pair("2026-06-15T13:14:00Z", "2026-06-15T13:15:00Z"));
    }

    #[test]
    fn total_never_ends_and_unknown_zones_are_refused() {
        let now = "2026-06-15T13:14:15Z".parse().unwrap();
        assert_eq!(window(QuotaWindow::Total, &TimeZone::UTC, now).unwrap().end, None);
        assert!(time_zone("Europe/Atlantis").is_err());
        assert!(window(QuotaWindow::Month, &TimeZone::UTC, Timestamp::MAX).is_err());
    }

    proptest::proptest! {
        #[test]
        fn windows_hold_their_moment_and_follow_each_other(
            second in 0_i64..4_000_000_000,
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"]),
            kind in proptest::sample::select(vec![
                QuotaWindow::Minute, QuotaWindow::Hour, QuotaWindow::Day, QuotaWindow::Month,
            ]),
        ) {
            let zone = time_zone(zone).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let here = window(kind, &zone, now).unwrap();
            let end = here.end.unwrap();
            proptest::prop_assert!(here.start <= now && now < end);
            // The same everywhere in it, as far as hours of half a length allow.
            proptest::prop_assert_eq!(window(kind, &zone, here.start).unwrap().start, here.start);
            proptest::prop_assert!(window(kind, &zone, end).unwrap().start <= end);
        }
    }
}
