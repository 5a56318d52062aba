//! How much of a response passes: its bytes, and the messages of gRPC in it.
//!
//! Refuses to count a part of a message as none: a message counts when its first byte passes.

use std::collections::BTreeMap;

use crate::domain::Amount;
use crate::quota::Denied;

/// The metric of bytes of a body, as Envoy hands it over.
pub(super) const BYTES: &str = "bytes";
/// The metric of messages of gRPC.
pub(super) const MESSAGES: &str = "messages";

/// Before each message: a flag, and the length in four bytes
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, Length-Prefixed-Message).
const PREFIX: usize = 5;

/// Follows a response from chunk to chunk.
pub(super) struct Meter {
    messages: Option<Messages>,
}

impl Meter {
    pub(super) fn new(is_grpc: bool) -> Self {
        Self { messages: is_grpc.then(Messages::default) }
    }

    /// The next chunk.
    pub(super) fn chunk<'a>(&mut self, body: &'a [u8]) -> Chunk<'a> {
        Chunk { body, messages: self.messages.as_mut().map(|messages| messages.begun_in(body)) }
    }
}

/// Where in a stream of messages the last chunk ended.
#[derive(Default)]
struct Messages {
    /// How many bytes of a prefix have passed.
    prefix: usize,
    /// What of its length has been read.
    length: u32,
    /// How many bytes of the message are still to come.
    left: usize,
}

impl Messages {
    /// Where in the next bytes messages begin.
    fn begun_in(&mut self, bytes: &[u8]) -> Vec<usize> {
        let mut begun = Vec::new();
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if self.left > 0 {
                let passed = self.left.min(rest.len());
                self.left -= passed;
                rest = rest.get(passed..).unwrap_or_default();
                continue;
            }
            if self.prefix == 0 {
                begun.push(bytes.len() - rest.len());
                self.length = 0;
            } else {
                self.length = (self.length << 8) | u32::from(*first);
            }
            self.prefix += 1;
            if self.prefix == PREFIX {
                self.prefix = 0;
                self.left = usize::try_from(self.length).unwrap_or(usize::MAX);
            }
            rest = after;
        }
        begun
    }
}

/// A chunk of a response.
pub(super) struct Chunk<'a> {
    body: &'a [u8],
    /// Where messages begin, if it is gRPC.
    messages: Option<Vec<usize>>,
}

impl<'a> Chunk<'a> {
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// Its first bytes.
    pub(super) fn first(&self, bytes: usize) -> &'a [u8] {
        self.body.get(..bytes).unwrap_or(self.body)
    }

    /// What its first bytes use.
    pub(super) fn usage(&self, bytes: usize) -> BTreeMap<String, f64> {
        let mut usage = BTreeMap::from([(BYTES.to_owned(), bytes as f64)]);
        if let Some(messages) = &self.messages {
            let begun = messages.iter().filter(|at| **at < bytes).count();
            usage.insert(MESSAGES.to_owned(), begun as f64);
        }
        usage
    }

    /// How many of its first bytes quotas leave that denied it. None where anything but a quota did.
    pub(super) fn fits(&self, denied: &Denied) -> usize {
        if !denied.is_exceeded() {
            return 0;
        }
        let fits = denied.states.iter().map(|quota| {
            let whole = quota.remaining.millionths() / Amount::ONE.millionths();
            let left = usize::try_from(whole).unwrap_or(usize::MAX);
            match (quota.metric.as_str(), &self.messages) {
                (BYTES, _) => left,
                // Up to the first message that there is none left for.
                (MESSAGES, Some(messages)) => messages.get(left).copied().unwrap_or(self.body.len()),
                _ => self.body.len(),
            }
        });
        fits.min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::outcome::QuotaState;
    use crate::domain::{Code, Reason};

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(bytes).unwrap().to_be_bytes());
        message.extend(std::iter::repeat_n(7, bytes));
        message
    }

    fn left(metric: &str, remaining: u64) -> QuotaState {
        QuotaState {
            id: metric.to_owned(),
            metric: metric.to_owned(),
            limit: Amount::whole(1_000),
            remaining: Amount::whole(remaining),
            began_at: jiff::Timestamp::UNIX_EPOCH,
            resets_at: None,
        }
    }

    fn denied(code: Code, states: Vec<QuotaState>) -> Denied {
        Denied { reasons: vec![Reason::new(code, "")], states }
    }

    #[test]
    fn a_part_passes_as_far_as_every_quota_leaves_it() {
        let body: Vec<u8> = [3, 0, 4].into_iter().flat_map(message).collect();
        let mut meter = Meter::new(true);
        let chunk = meter.chunk(&body);
        assert_eq!(
            chunk.usage(body.len()),
            [("bytes".to_owned(), 22.0), ("messages".to_owned(), 3.0)].into()
        );
        // The first byte of a message is the message.
        assert_eq!((chunk.usage(8)["messages"], chunk.usage(9)["messages"]), (1.0, 2.0));
        let fits = |states| chunk.fits(&denied(Code::QuotaExceeded, states));
        assert_eq!(fits(vec![left("bytes", 10)]), 10);
        assert_eq!(fits(vec![left("bytes", 10), left("messages", 1), left("rows", 0)]), 8);
        assert_eq!(fits(vec![left("messages", 0)]), 0);
        assert_eq!(fits(vec![left("messages", 9)]), 22);
        assert_eq!(chunk.fits(&denied(Code::StateUnavailable, vec![left("bytes", 10)])), 0);
        // Without messages, there is nothing that their quota could count.
        assert_eq!(
            Meter::new(false).chunk(&body).fits(&denied(Code::QuotaExceeded, vec![left("messages", 0)])),
            22
        );
    }

    proptest! {
        #[test]
        fn messages_are_counted_once_however_they_are_cut(
            sizes in prop::collection::vec(0_usize..40, 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let body: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
            let (mut meter, mut rest, mut counted) = (Meter::new(true), body.as_slice(), 0.0);
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                counted += meter.chunk(chunk).usage(chunk.len())["messages"];
                rest = after;
            }
            prop_assert_eq!(counted, sizes.len() as f64);
        }
    }
}
