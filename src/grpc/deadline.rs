//! The caller's deadline. Refuses to begin, or go on with, what nobody waits for any more.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderMap;

/// A limit on deadlines, so that adding one to the time cannot overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the caller will wait: `grpc-timeout`, at most eight digits and a unit. What is not
/// well-formed is not a deadline.
pub(super) fn of_caller(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 60 * 60)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// What `call` resolves to, if it does within the time `allowed` since `begun`. It is not polled
/// after that, so a message that came in too late is not decided.
pub(super) async fn within<T>(begun: Instant, allowed: Duration, call: impl Future<Output = T>) -> Option<T> {
    let deadline = begun + allowed.min(LONGEST);
    let mut call = pin!(call);
    // Costs nothing until it is polled: most calls are ready before.
    let mut timer = pin!(tokio::time::sleep_until(deadline.into()));
    poll_fn(|cx| {
        if Instant::now() >= deadline {
            return Poll::Ready(None);
        }
        match call.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(text: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static(text));
        of_caller(&headers)
    }

    #[test]
    fn reads_what_the_protocol_allows_and_nothing_else() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("0S"), Some(Duration::ZERO));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("1u"), Some(Duration::from_micros(1)));
        assert_eq!(parse("1n"), Some(Duration::from_nanos(1)));
        for text in ["", "S", "1", "1s", "+1S", "-1S", "1.5S", "100000000S", "1 S"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn does_not_begin_what_is_too_late() {
        let begun = Instant::now();
        let late = within(begun, Duration::ZERO, async { panic!("begun") }).await;
        assert_eq!(late, None::<()>);
        assert_eq!(within(begun, Duration::MAX, async { 1 }).await, Some(1));
    }

    #[tokio::test]
    async fn gives_up_in_time() {
        let begun = Instant::now();
        assert_eq!(within(begun, Duration::from_millis(50), std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
