//! Turns an objection into words: what was asked, what is licensed, what would pass.
//!
//! Policies carry the words as annotations with placeholders such as `{purpose}`. Refuses
//! placeholders it does not know, when the policies are loaded.

use std::fmt::Write;
use std::sync::Arc;

use crate::domain::terms::Anonymization;
use crate::domain::{CheckRequest, Code, Reason, Terms};

/// The code and words of a `forbid`.
#[derive(Clone, Debug)]
pub struct Words {
    code: Code,
    user: Template,
    admin: Template,
    passes: Template,
    cite: Option<Arc<str>>,
}

/// What placeholders are filled from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was asked.
    pub request: &'a CheckRequest,
    /// `sub` of the license.
    pub assignee: &'a str,
    /// Its terms.
    pub terms: &'a Terms,
    /// What the catalog says of the dataset's release.
    pub release: &'a str,
}

impl Words {
    /// Parses the words of a policy.
    ///
    /// # Errors
    /// Names the annotation and the placeholder that is not known.
    pub fn new(
        code: Code,
        user: &str,
        admin: &str,
        passes: &str,
        cite: Option<&str>,
    ) -> Result<Self, String> {
        let template = |annotation: &str, text: &str| {
            Template::parse(text).map_err(|error| format!("`@{annotation}`: {error}"))
        };
        Ok(Self {
            code,
            user: template("reason", user)?,
            admin: template("admin", admin)?,
            passes: template("passes", passes)?,
            cite: cite.map(Arc::from),
        })
    }

    /// The reason that the policy `id` gives.
    pub fn reason(&self, id: &str, facts: &Facts<'_>) -> Reason {
        Reason {
            code: self.code,
            policy_id: id.to_owned(),
            reason_user: self.user.fill(facts),
            reason_admin: self.admin.fill(facts),
            would_pass_if: self.passes.fill(facts),
            cite: self.cite.clone(),
        }
    }
}

/// Text with placeholders.
#[derive(Clone, Debug)]
struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(Placeholder),
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("`{` without `}`")?;
            let value = Placeholder::ALL.iter().find(|(known, _)| *known == name);
            let (_, value) = value.ok_or_else(|| {
                let known: Vec<&str> = Placeholder::ALL.iter().map(|(name, _)| *name).collect();
                format!("unknown placeholder `{{{name}}}`; there are {}", known.join(", "))
            })?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Value(*value));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    fn fill(&self, facts: &Facts<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(value) => value.write(facts, &mut out),
            }
        }
        out
    }
}

#[derive(Clone, Copy, Debug)]
enum Placeholder {
    Subject,
    Organization,
    Roles,
    Action,
    Dataset,
    Purpose,
    Region,
    Project,
    Environment,
    CombinedWith,
    CombinedWithExternal,
    Release,
    Assignee,
    Datasets,
    Actions,
    Purposes,
    Users,
    LicensedRoles,
    Projects,
    Regions,
    Environments,
    Prohibitions,
    Anonymization,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 23] = [
        ("subject", Self::Subject),
        ("organization", Self::Organization),
        ("roles", Self::Roles),
        ("action", Self::Action),
        ("dataset", Self::Dataset),
        ("purpose", Self::Purpose),
        ("region", Self::Region),
        ("project", Self::Project),
        ("environment", Self::Environment),
        ("combined_with", Self::CombinedWith),
        ("combined_with_external", Self::CombinedWithExternal),
        ("release", Self::Release),
        ("license.assignee", Self::Assignee),
        ("license.datasets", Self::Datasets),
        ("license.actions", Self::Actions),
        ("license.purposes", Self::Purposes),
        ("license.users", Self::Users),
        ("license.roles", Self::LicensedRoles),
        ("license.projects", Self::Projects),
        ("license.regions", Self::Regions),
        ("license.environments", Self::Environments),
        ("license.prohibitions", Self::Prohibitions),
        ("license.anonymization", Self::Anonymization),
    ];

    fn write(self, facts: &Facts<'_>, out: &mut String) {
        let Facts { request, terms, .. } = facts;
        match self {
            Self::Subject => out.push_str(&request.subject.id),
            Self::Organization => out.push_str(&request.subject.organization),
            Self::Roles => list(request.subject.roles.iter(), out),
            Self::Action => out.push_str(&request.action),
            Self::Dataset => out.push_str(&request.resource.id),
            Self::Purpose => one(&request.purpose, out),
            Self::Region => one(&request.region, out),
            Self::Project => one(&request.project, out),
            Self::Environment => one(&request.environment, out),
            Self::CombinedWith => list(request.combined_with.iter(), out),
            Self::CombinedWithExternal => out.push_str(yes_no(request.combined_with_external)),
            Self::Release => out.push_str(facts.release),
            Self::Assignee => out.push_str(facts.assignee),
            Self::Datasets => list(terms.datasets.iter(), out),
            Self::Actions => list(terms.actions.iter(), out),
            Self::Purposes => list(terms.purposes.iter(), out),
            Self::Users => list(terms.users.iter().flatten(), out),
            Self::LicensedRoles => list(terms.roles.iter().flatten(), out),
            Self::Projects => list(terms.projects.iter().flatten(), out),
            Self::Regions => list(terms.regions.iter().flatten(), out),
            Self::Environments => list(terms.environments.iter().flatten(), out),
            Self::Prohibitions => list(terms.prohibitions.iter().map(|name| name.as_str()), out),
            Self::Anonymization => standard(terms.anonymization.as_ref(), out),
        }
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn one(value: &str, out: &mut String) {
    if value.is_empty() {
        out.push_str("(none given)");
    } else {
        list(std::iter::once(value), out);
    }
}

fn list(values: impl Iterator<Item = impl std::fmt::Display>, out: &mut String) {
    let before = out.len();
    for value in values {
        let separator = if out.len() == before { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(out, "{separator}`{value}`");
    }
    if out.len() == before {
        out.push_str("(none)");
    }
}

fn standard(least: Option<&Anonymization>, out: &mut String) {
    let Some(least) = least else {
        return out.push_str("(none)");
    };
    let parts = [
        least.k_anonymity.map(|k| format!("k-anonymity of at least {k}")),
        least.l_diversity.map(|l| format!("l-diversity of at least {l}")),
        least.t_closeness.map(|t| format!("t-closeness of at most {t}")),
        least.epsilon.map(|epsilon| format!("epsilon of at most {epsilon}")),
        some_of("the techniques", least.techniques.iter()),
        some_of("an attestation by one of", least.attested_by.iter()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    out.push_str(&parts.join(", "));
}

fn some_of<'a>(what: &str, values: impl ExactSizeIterator<Item = &'a String>) -> Option<String> {
    (values.len() > 0).then(|| {
        let mut out = format!("{what} ");
        list(values, &mut out);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_placeholder() {
        let page = include_str!("../../docs/policies.md");
        let listed = page.lines().filter_map(|line| line.strip_prefix("| `{")?.split_once("}` |"));
        let listed: Vec<&str> = listed.map(|(name, _)| name).collect();
        let known: Vec<&str> = Placeholder::ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, known, "docs/policies.md lists other placeholders than there are");
    }
}
