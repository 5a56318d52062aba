//! Licenses: signed, verified, decoded. Three types say what is proven: [`Claims`] are decoded,
//! a [`VerifiedLicense`] has a valid signature of a trusted key and only terms that are
//! understood; what the store says of it is the decision's concern.
//!
//! Refuses every algorithm but Ed25519 and every member that is not known.

pub mod cache;
pub mod claims;
pub mod draft;
pub mod jws;
pub mod registered;
pub mod sign;
pub mod verify;

pub use cache::Licenses;
pub use claims::{Audience, Claims, Confirmation};
pub use draft::Draft;
pub use registered::Registry;
pub use verify::{Refusal, VerifiedLicense};
