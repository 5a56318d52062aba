//! Remembers which shapes of request the schema was seen to accept.
//!
//! Every member of a request's context has one type, given by the code that builds it; only which
//! members are there differs. So the schema needs to look at each shape once, not at each
//! request. Refuses to remember what it does not know the types of: requests with attributes of the
//! caller's own, and all requests under a schema that is not the built-in one.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::domain::{Action, CheckRequest};

/// The action of a request, and which optional members it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    action: usize,
    members: u16,
    /// Whether the caller sent attributes of its own.
    open: bool,
}

impl Shape {
    /// The shape of a request that has those of its optional members whose flag is set.
    pub(super) fn of(action: Action, optional: [bool; 4], request: &CheckRequest) -> Self {
        let members = optional.iter().fold(0, |bits, present| bits << 1 | u16::from(*present));
        let open = !request.context.is_empty() || !request.resource.properties.is_empty();
        Self { action: action as usize, members, open }
    }
}

/// The shapes that the schema accepted.
#[derive(Debug)]
pub(super) struct Shapes {
    accepted: [AtomicU16; Action::ALL.len()],
    remembers: bool,
}

impl Shapes {
    /// None yet; never any, if it `remembers` nothing.
    pub(super) fn new(remembers: bool) -> Self {
        Self { accepted: Default::default(), remembers }
    }

    /// Whether the schema accepted a request of this shape before.
    pub(super) fn is_valid(&self, shape: Shape) -> bool {
        let known = self.accepted.get(shape.action).map_or(0, |known| known.load(Relaxed));
        !shape.open && known & (1 << shape.members) != 0
    }

    /// The schema accepted a request of this shape.
    pub(super) fn note_valid(&self, shape: Shape) {
        let worth_noting = self.remembers && !shape.open && !self.is_valid(shape);
        if let Some(known) = self.accepted.get(shape.action).filter(|_| worth_noting) {
            known.fetch_or(1 << shape.members, Relaxed);
        }
    }
}
