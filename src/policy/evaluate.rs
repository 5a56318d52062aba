//! Asks Cedar. First the conjunction of all terms; the terms one by one only where it denied,
//! to name every reason.
//!
//! Refuses to let an error pass: whatever Cedar could not evaluate denies, although Cedar itself
//! would skip the policy (cedar-policy/cedar#2428).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicyId, PolicySet, Request, Response,
};

use super::Snapshot;
use super::assemble::{self, Value};
use super::catalog::{Nodes, uncatalogued};
use super::entities::{CedarLicense, Node, named};
use super::explain::Facts;
use super::shape::Shape;
use crate::document::with_causes;
use crate::domain::{Action, CheckRequest, Code, DatasetPath, Obligation, Reason, Terms};

/// What the policies say to a question. It allows when there is no reason against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Everything that stands against it.
    pub reasons: Vec<Reason>,
    /// What the granting policies oblige to; empty on a denial.
    pub obligations: Vec<Obligation>,
    /// The policies that granted; empty on a denial.
    pub granting: Vec<String>,
}

/// The license of a question, in the forms that policies need.
#[derive(Clone, Copy, Debug)]
pub struct Licensed<'a> {
    /// As policies see it.
    pub license: &'a CedarLicense,
    /// `sub`.
    pub assignee: &'a str,
    /// The terms, for words.
    pub terms: &'a Terms,
}

/// The parts of a question as Cedar takes them.
struct Asked {
    request: Request,
    entities: Entities,
    principal: Node,
    action: Arc<Node>,
    resource: Arc<Node>,
}

/// What the picked policies said, taken together.
#[derive(Default)]
struct Verdict {
    permits: BTreeSet<PolicyId>,
    forbids: BTreeSet<PolicyId>,
    errors: BTreeMap<PolicyId, String>,
}

impl Verdict {
    fn add(&mut self, response: &Response) {
        let satisfied = response.diagnostics().reason().cloned();
        match response.decision() {
            cedar_policy::Decision::Allow => self.permits.extend(satisfied),
            cedar_policy::Decision::Deny => self.forbids.extend(satisfied),
        }
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            self.errors.insert(error.policy_id().clone(), error.inner().to_string());
        }
    }
}

impl Snapshot {
    /// Evaluates afresh, without looking at remembered answers.
    pub fn evaluate(&self, license: Licensed<'_>, request: &CheckRequest) -> Answer {
        let mut reasons = self.unknown_words(request);
        let asked = match self.ask(license, request) {
            Ok(asked) => asked,
            Err(mut invalid) => {
                reasons.append(&mut invalid);
                return Answer { reasons, ..Answer::default() };
            }
        };
        let authorizer = Authorizer::new();
        let is_authorized = |set: &PolicySet| authorizer.is_authorized(&asked.request, set, &asked.entities);
        let composed = is_authorized(&self.composed.of(&license.license.record, &license.license.residual));
        let terms_hold = composed.decision() == cedar_policy::Decision::Allow
            && composed.diagnostics().errors().next().is_none();
        let mut verdict = Verdict::default();
        let (principal, resource) = (asked.principal.lineage(), asked.resource.lineage());
        for set in self.index.select(principal, asked.action.lineage(), resource) {
            verdict.add(&is_authorized(set));
        }
        if !terms_hold {
            verdict.add(&is_authorized(&self.terms));
            if verdict.forbids.is_empty() && verdict.errors.is_empty() {
                let message = "the terms taken together deny, taken one by one they do not";
                verdict.errors.insert(PolicyId::new(super::compose::COMPOSED_ID), message.to_owned());
            }
        }
        reasons.extend(self.objections(&verdict, &asked, license, request));
        if !reasons.is_empty() {
            return Answer { reasons, ..Answer::default() };
        }
        let granting = self.always_granting.iter().chain(&verdict.permits).map(PolicyId::to_string).collect();
        Answer { reasons, obligations: self.obligations(&verdict), granting }
    }

    fn objections(
        &self,
        verdict: &Verdict,
        asked: &Asked,
        license: Licensed<'_>,
        request: &CheckRequest,
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !verdict.forbids.is_empty() {
            let release = release(&asked.resource.entity.entity());
            let facts =
                Facts { request, assignee: license.assignee, terms: license.terms, release: &release };
            let named =
                verdict.forbids.iter().filter_map(|id| Some((id, self.rules.get(id)?.words.as_ref()?)));
            reasons.extend(named.map(|(id, words)| words.reason(id.as_ref(), &facts)));
        }
        reasons.extend(verdict.errors.iter().map(|(id, error)| Reason {
            policy_id: id.to_string(),
            ..Reason::new(Code::PolicyError, format!("policy `{id}` could not be evaluated: {error}"))
        }));
        if reasons.is_empty() && self.always_granting.is_empty() && verdict.permits.is_empty() {
            reasons.push(Reason::new(Code::NoPolicyPermits, "none of the policies that permit applies"));
        }
        reasons.sort_by(|a, b| (a.code, &a.policy_id).cmp(&(b.code, &b.policy_id)));
        reasons
    }

    fn obligations(&self, verdict: &Verdict) -> Vec<Obligation> {
        let rules = verdict.permits.iter().filter_map(|id| self.rules.get(id));
        rules.filter_map(|rule| rule.obligation.clone()).collect()
    }

    /// A purpose or region that the gate has never heard of is a mistake worth naming, whether or
    /// not the license would cover it.
    fn unknown_words(&self, request: &CheckRequest) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !request.purpose.is_empty() && !self.purposes.contains_key(&request.purpose) {
            let admin = format!("purpose: `{}` is not a known purpose", request.purpose);
            reasons.push(
                Reason::new(Code::ContextInvalid, admin).would_pass_if(
                    "`purpose` is a DPV purpose by its local name, such as `ScientificResearch`",
                ),
            );
        }
        if !request.region.is_empty() && !self.regions.contains_key(&request.region) {
            let admin = format!("region: `{}` is not a known region", request.region);
            reasons.push(
                Reason::new(Code::ContextInvalid, admin)
                    .would_pass_if("`region` is an ISO 3166-1 alpha-2 code, such as `FR`"),
            );
        }
        reasons
    }

    fn ask(&self, license: Licensed<'_>, request: &CheckRequest) -> Result<Asked, Vec<Reason>> {
        let mut invalid = Vec::new();
        let mut note = |field: &str, problem: &str, remedy: &str| {
            let admin = format!("{field}: {problem}");
            invalid.push(Reason::new(Code::ContextInvalid, admin).would_pass_if(remedy));
        };
        if request.subject.id.is_empty() {
            note("subject.id", "it is empty", "`subject.id` names the user");
        }
        if !matches!(request.resource.kind.as_str(), "" | "dataset") {
            let problem = format!("`{}` is not a type of resource", request.resource.kind);
            note("resource.type", &problem, "`resource.type` is `dataset` or absent");
        }
        let action = request.action.parse::<Action>();
        if action.is_err() {
            let problem = format!("`{}` is not an action", request.action);
            note(
                "action",
                &problem,
                &format!("`action` is one of {}", Action::ALL.map(Action::as_str).join(", ")),
            );
        }
        let path = request.resource.id.parse::<DatasetPath>();
        if let Err(error) = &path {
            note("resource.id", &error.to_string(), "`resource.id` is the path of a dataset");
        }
        let combined_with = request
            .combined_with
            .iter()
            .enumerate()
            .map(|(position, path)| path.parse::<DatasetPath>().map_err(|error| (position, error)));
        let combined_with = combined_with.collect::<Result<Vec<_>, _>>();
        if let Err((position, error)) = &combined_with {
            let field = format!("combined_with[{position}]");
            note(&field, &error.to_string(), "`combined_with` lists paths of datasets");
        }
        match (action, path, combined_with) {
            (Ok(action), Ok(path), Ok(combined_with)) if invalid.is_empty() => self
                .build(license, request, action, &path, &combined_with)
                .map_err(|message| vec![Reason::new(Code::ContextInvalid, message)]),
            _ => Err(invalid),
        }
    }

    fn build(
        &self,
        license: Licensed<'_>,
        request: &CheckRequest,
        action: Action,
        path: &DatasetPath,
        combined_with: &[DatasetPath],
    ) -> Result<Asked, String> {
        let resource = self.dataset(path);
        let principal = self.principal(request);
        let purpose = word(&request.purpose, &self.purposes, |id| self.types.purpose(id));
        let region = word(&request.region, &self.regions, |id| self.types.region(id));
        let action_node = self.actions.get(&action).cloned();
        let action_node = action_node.ok_or_else(|| format!("action: `{action}` is not in the schema"))?;

        let uid = |node: &Arc<Node>| Value::entity(node.uid.clone());
        let given = |text: &String| (!text.is_empty()).then(|| Value::text(text));
        let project = (!request.project.is_empty()).then(|| self.types.project(&request.project));
        let optional = [
            ("purpose", purpose.as_ref().map(uid)),
            ("region", region.as_ref().map(uid)),
            ("project", project.map(Value::entity)),
            ("environment", given(&request.environment)),
        ];
        let mut sent = Vec::new();
        let attributes = record("context", &request.context, &mut sent)?;
        let properties = record("resource.properties", &request.resource.properties, &mut sent)?;
        let shape = Shape::of(action, optional.each_ref().map(|(_, value)| value.is_some()), request);
        let required = [
            ("license", license.license.record.clone()),
            ("action", Value::text(action.as_str())),
            (
                "combined_with",
                Value::entities(combined_with.iter().map(|path| self.types.dataset(path.as_str()))),
            ),
            ("combined_with_external", Value::truth(request.combined_with_external)),
            ("attributes", attributes),
            ("properties", properties),
        ];
        let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let context = assemble::context(required.into_iter().chain(optional));
        let (user, dataset) = (principal.uid.clone(), resource.uid.clone());
        let schema = (!self.shapes.is_valid(shape)).then_some(&self.schema);
        let cedar = Request::new(user, action_node.uid.clone(), dataset, context, schema)
            .map_err(|error| error.to_string())?;
        self.shapes.note_valid(shape);
        let further = self.reachable(&resource, sent);
        // Most actions are in no group.
        let grouped = (!action_node.ancestors.is_empty()).then_some(&action_node);
        let others = [Some(&resource), purpose.as_ref(), region.as_ref(), grouped].into_iter().flatten();
        let others = others.chain(&further).map(|node| &node.entity);
        let entities =
            assemble::entities(others.chain([&principal.entity])).map_err(|error| error.to_string())?;
        Ok(Asked { request: cedar, entities, principal, action: action_node, resource })
    }

    /// The entities that the caller's attributes and those of the dataset name, and what these name.
    /// A policy may ask what one of them is in, and were it missing, Cedar would say nothing: a
    /// `forbid` would not object.
    fn reachable(&self, resource: &Node, sent: Vec<EntityUid>) -> Vec<Arc<Node>> {
        let mut open = sent;
        open.extend(resource.named.iter().cloned());
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some(uid) = open.pop() {
            if let Some(node) = self.known(&uid)
                && seen.insert(uid)
            {
                open.extend(node.named.iter().cloned());
                found.push(node);
            }
        }
        found
    }

    /// What taxonomies and catalog say of an entity.
    fn known(&self, uid: &EntityUid) -> Option<Arc<Node>> {
        let id = uid.id().unescaped();
        let words = [&self.regions, &self.purposes].into_iter().filter_map(|nodes| nodes.get(id));
        let dataset = || {
            let path = (self.types.dataset(id) == *uid).then(|| id.parse().ok())?;
            path.map(|path| self.dataset(&path))
        };
        words.into_iter().find(|node| node.uid == *uid).cloned().or_else(dataset)
    }

    fn dataset(&self, path: &DatasetPath) -> Arc<Node> {
        let listed = self.catalog.get(path.as_str()).cloned();
        listed.unwrap_or_else(|| Arc::new(uncatalogued(path, &self.catalog, &self.types)))
    }

    fn principal(&self, request: &CheckRequest) -> Node {
        let subject = &request.subject;
        let mut roles: Vec<&str> =
            subject.roles.iter().map(String::as_str).filter(|role| !role.is_empty()).collect();
        roles.sort_unstable();
        roles.dedup();
        let roles = roles.into_iter().map(|role| self.types.role(role));
        let organization =
            (!subject.organization.is_empty()).then(|| self.types.organization(&subject.organization));
        let project = (!request.project.is_empty()).then(|| self.types.project(&request.project));
        let above: Vec<EntityUid> = roles.chain(organization).chain(project).collect();
        Node::plain(self.types.user(&subject.id), above)
    }
}

/// The node of a purpose or region; one that is not in the taxonomy stands alone.
fn word(id: &str, known: &Nodes, uid: impl Fn(&str) -> EntityUid) -> Option<Arc<Node>> {
    let alone = || Arc::new(Node::plain(uid(id), Vec::new()));
    (!id.is_empty()).then(|| known.get(id).cloned().unwrap_or_else(alone))
}

/// The caller's own attributes, in Cedar's JSON. What they name is added to `sent`.
fn record(
    field: &str,
    attributes: &serde_json::Map<String, serde_json::Value>,
    sent: &mut Vec<EntityUid>,
) -> Result<Value, String> {
    let context = if attributes.is_empty() {
        Context::empty()
    } else {
        let json = serde_json::Value::Object(attributes.clone());
        Context::from_json_value(json, None).map_err(|error| format!("{field}: {}", with_causes(&error)))?
    };
    let values = attributes.keys().filter_map(|name| context.get(name));
    sent.extend(values.flat_map(|value| named(&value)));
    Value::record(&context).ok_or_else(|| format!("{field}: it has unknown parts"))
}

/// What the catalog says of a dataset's release, for the administrator.
fn release(dataset: &Entity) -> String {
    match dataset.attr("anonymization") {
        Some(Ok(release)) => release.to_string(),
        _ => "no release is attested".to_owned(),
    }
}

#[cfg(test)]
mod tests;
