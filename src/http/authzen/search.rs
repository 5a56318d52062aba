//! The three searches: which users, datasets or actions a license allows.
//!
//! Refuses bodies that would make a thousand candidates slow.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::members::{Members, object};
use super::page::{Conditions, Wanted};
use super::question;
use crate::decision::{Found, Pdp, Sought};
use crate::domain::Clock;
use crate::http::malformed::Malformed;

/// The largest body of a search, in bytes: every candidate is asked for with all of it.
pub(super) const MAX_BODY: usize = 64 << 10;

/// The answer to a search.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Results {
    /// Where the list goes on.
    page: NextPage,
    /// What the list stands for.
    context: SearchContext,
    /// What is allowed, of this page.
    results: Vec<Entity>,
}

/// Where a list goes on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NextPage {
    /// The `token` that the next page is asked for with; empty where there is none.
    next_token: String,
    /// The results of this page.
    count: usize,
}

/// What a list stands for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchContext {
    /// Whether everything that is allowed is in the list, all pages together.
    exhaustive: bool,
    /// The codes for which candidates of this page were left out.
    codes: Vec<&'static str>,
    /// The revision of policies and catalog that was looked through.
    policy_revision: String,
    /// What was revoked before this moment is known to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    status_as_of: Option<String>,
}

/// Something that is allowed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Entity {
    /// A subject or a resource.
    Thing {
        /// The type that was asked for.
        #[serde(rename = "type")]
        kind: String,
        /// Its id.
        id: String,
    },
    /// An action.
    Action {
        /// Its name.
        name: String,
    },
}

pub(super) async fn search(
    body: Map<String, Value>,
    token: Option<&str>,
    sought: Sought,
    pdp: &Pdp,
    clock: &Clock,
) -> Result<Results, Malformed> {
    let mut body = Members(body);
    let question = question::read(&mut body, token, Some(sought))?;
    let wanted = body.take("page", |value| Wanted::read(object(value)?))?.unwrap_or_default();
    let conditions = Conditions::of(&question, sought, &pdp.policy_revision());
    let span = conditions.open(&wanted).map_err(|malformed| malformed.within("page"))?;
    let found = pdp.search(&question, sought, span, clock).await;
    let Found { names, next, is_exhaustive, codes, policy_revision, status_as_of } = found;
    // They may have changed in between.
    let conditions = Conditions::of(&question, sought, &policy_revision);
    let entity = |name: String| match sought {
        Sought::Subject => Entity::Thing { kind: "user".to_owned(), id: name },
        Sought::Resource => Entity::Thing { kind: question.resource.kind.clone(), id: name },
        Sought::Action => Entity::Action { name },
    };
    Ok(Results {
        page: NextPage {
            next_token: next.map(|from| conditions.token(from, span.limit)).unwrap_or_default(),
            count: names.len(),
        },
        context: SearchContext {
            exhaustive: is_exhaustive,
            codes: codes.into_iter().map(crate::domain::Code::as_str).collect(),
            policy_revision: policy_revision.as_ref().to_owned(),
            status_as_of: status_as_of.map(|time| time.to_string()),
        },
        results: names.into_iter().map(entity).collect(),
    })
}
