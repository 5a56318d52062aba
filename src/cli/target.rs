//! Which licenses an act is about and why, and how they stand after it.
//!
//! Refuses to guess: exactly one of the ways to name licenses is used, and a reason is given.

use serde_json::json;

use super::admin::{Admin, answers};
use super::{CliError, output};
use crate::domain::standing;
use crate::proto::v1::{
    self as wire, GetLicenseRequest, License, LicenseStatus, ListLicensesRequest, Standing, target,
};

/// The most licenses in the words about an act that hit many.
const SHOWN: usize = 20;

/// Which licenses, and why.
#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    #[command(flatten)]
    which: Which,
    /// The issuer of the licenses; may be left out where the gate trusts one alone
    #[arg(long)]
    issuer: Option<String>,
    /// Why; kept and shown
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Which licenses of an issuer: one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The license of this id, registered or not
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// All licenses signed with the key of this id
    // A `kid` is base64url, and may begin with a hyphen.
    #[arg(long, value_name = "KID", allow_hyphen_values = true)]
    key_id: Option<String>,
    /// All licenses granted to this organization
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// All licenses of the issuer
    #[arg(long)]
    all: bool,
}

impl Chosen {
    /// The target of the act, for a message.
    pub(super) fn target(&self) -> Option<wire::Target> {
        let which = match &self.which {
            Which { license: Some(id), .. } => target::Which::LicenseId(id.clone()),
            Which { key_id: Some(kid), .. } => target::Which::KeyId(kid.clone()),
            Which { assignee: Some(assignee), .. } => target::Which::Assignee(assignee.clone()),
            Which { all, .. } => target::Which::All(*all),
        };
        Some(wire::Target { issuer: self.issuer.clone().unwrap_or_default(), which: Some(which) })
    }

    /// Why, for a message.
    pub(super) fn reason(&self) -> String {
        self.reason.clone()
    }
}

/// Tells how a target stands after an act, and which registered licenses that hits.
pub(super) async fn tell(
    admin: &mut Admin<'_>,
    standing: Option<Standing>,
    as_json: bool,
) -> Result<(), CliError> {
    let standing = standing.unwrap_or_default();
    let target = answers::target(&standing);
    // One license is told by its id; what is about many tells which.
    let many = target.as_ref().filter(|target| !matches!(target.which, standing::Which::License(_)));
    let hit = match many {
        None => None,
        Some(target) => match hit(admin, target).await {
            Ok(hit) => Some(hit),
            Err(error) => {
                output::warning(&format!("it is done, and the licenses cannot be listed: {error}"));
                None
            }
        },
    };
    if let Some(standing::Target { which: standing::Which::License(id), .. }) = &target
        && standing.status() == LicenseStatus::Valid
    {
        warn_of_others(admin, id).await;
    }
    if as_json {
        let mut told = answers::standing(&standing);
        if let (Some(members), Some(hit)) = (told.as_object_mut(), &hit) {
            let ids = hit.iter().map(|license| license.id.as_str()).collect::<Vec<_>>();
            members.insert("licenses".to_owned(), json!(ids));
        }
        output::json(&told);
        return Ok(());
    }
    output::field("status", answers::word(standing.status()));
    output::field("target", &target.map(|target| target.to_string()).unwrap_or_default());
    output::field("reason", &standing.reason);
    output::field("by", &standing.actor);
    output::field("since", &answers::time(standing.since).unwrap_or_default());
    if let Some(hit) = hit {
        explain(&hit);
    }
    Ok(())
}

/// What else stands against a license that was reinstated: it is told where the license is registered.
async fn warn_of_others(admin: &mut Admin<'_>, id: &str) {
    let request = admin.request(GetLicenseRequest { license_id: id.to_owned() });
    let Ok(answer) = admin.client.get_license(request).await else { return };
    for standing in answer.into_inner().license.unwrap_or_default().standings {
        output::warning(&format!("the license is still {}", answers::sentence(&standing)));
    }
}

/// The registered licenses that a target is about.
async fn hit(admin: &mut Admin<'_>, target: &standing::Target) -> Result<Vec<License>, CliError> {
    let mut ask = ListLicensesRequest { issuer: target.issuer.clone(), ..ListLicensesRequest::default() };
    if let standing::Which::Assignee(assignee) = &target.which {
        ask.assignee.clone_from(assignee);
    }
    let mut licenses = admin.licenses(ask, None).await?;
    if let standing::Which::Key(kid) = &target.which {
        licenses.retain(|license| license.key_id == *kid);
    }
    Ok(licenses)
}

fn explain(hit: &[License]) {
    output::field("licenses", &format!("{} registered, and any that are not", hit.len()));
    if hit.is_empty() {
        return;
    }
    output::line("");
    let row = |license: &License| {
        vec![license.id.clone(), license.assignee.clone(), answers::word(license.status()).to_owned()]
    };
    output::table(&["license", "assignee", "status"], hit.iter().take(SHOWN).map(row));
    if let Some(more) = hit.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        output::line(&format!("and {more} more; `tollgate licenses` lists them"));
    }
}
