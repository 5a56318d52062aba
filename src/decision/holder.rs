//! Step 5: a license that is bound to a holder (RFC 7800) must come with the proof that its
//! enforcement point verified. Refuses another kind of proof than the license names.

use crate::domain::request::Holder;
use crate::domain::{Code, Reason};
use crate::license::{Claims, Confirmation};

pub(super) fn check_holder(claims: &Claims, holder: &Holder) -> Option<Reason> {
    let (kind, bound, shown) = match claims.cnf.as_ref()? {
        Confirmation::SpiffeId(id) => ("SPIFFE id", id, &holder.spiffe_id),
        Confirmation::CertificateThumbprint(hash) => {
            ("certificate thumbprint", hash, &holder.certificate_thumbprint)
        }
        Confirmation::JwkThumbprint(hash) => ("JWK thumbprint", hash, &holder.jwk_thumbprint),
    };
    // Claims are not accepted with an empty binding; an absent proof proves nothing all the same.
    if bound == shown && !shown.is_empty() {
        return None;
    }
    let presented =
        if shown.is_empty() { "none was presented".to_owned() } else { format!("presented was `{shown}`") };
    let admin = format!("the license is bound to the {kind} `{bound}`; {presented}");
    Some(Reason::new(Code::HolderMismatch, admin))
}
