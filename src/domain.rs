//! The words of the business: what is asked, what is licensed, what is answered.
//!
//! Plain data and pure functions. Refuses to read a clock, a file or a socket, and
//! to know how any of it is stored, signed or sent.

pub mod amount;
pub mod ids;
pub mod object;
pub mod obligation;
pub mod outcome;
pub mod reason;
pub mod request;
pub mod standing;
pub mod terms;
pub mod time;

pub use amount::Amount;
pub use ids::{DatasetPath, DecisionId};
pub use obligation::Obligation;
pub use outcome::{Decision, Effect};
pub use reason::{Code, Reason};
pub use request::{Action, CheckRequest, LicenseRef};
pub use standing::{Standing, Status, Target, Which};
pub use terms::Terms;
pub use time::Clock;
