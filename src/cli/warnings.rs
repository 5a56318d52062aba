//! What a license says that gates may not honour, although it is well-formed.
//!
//! Refuses nothing: an operator may have purposes and regions of its own.

use crate::domain::Terms;
use crate::policy::load::built_in_names;

/// What is worth a look before a license is handed out.
pub(super) fn of(terms: &Terms) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    warnings.extend(terms.unenforced().map(|term| {
        format!(
            "terms.{term}: gates of this version cannot enforce it, and deny every use (TERM_UNSUPPORTED)"
        )
    }));
    let names = [
        ("purposes", Some(&terms.purposes), built_in_names("purposes.json"), "a DPV purpose"),
        (
            "regions",
            terms.regions.as_ref(),
            built_in_names("regions.json"),
            "an ISO 3166-1 code or a known group",
        ),
    ];
    for (term, used, known, kind) in names {
        let unknown = used.into_iter().flatten().filter(|name| !known.contains(*name));
        warnings.extend(unknown.map(|name| {
            format!("terms.{term}: `{name}` is not {kind}; only a gate whose operator has added it covers it")
        }));
    }
    warnings
}
