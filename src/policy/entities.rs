//! Cedar's view of the world: datasets, words, license and subject as entities.
//!
//! What is constant is built once: type names when the policy set is loaded, taxonomies and
//! catalog with it, the license when it is verified. Every entity carries all its ancestors as
//! parents, so the store of a request holds only the entities that policies can reach from it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use cedar_policy::{
    Context, ContextCreationError, Entity, EntityAttrEvaluationError, EntityId, EntityTypeName, EntityUid,
    EvalResult, ExpressionConstructionError, ParseErrors, RestrictedExpression,
};

use super::assemble::{Shared, Value};
use super::residual::Residual;
use crate::domain::Action;
use crate::domain::terms::{Anonymization, Terms};

/// The type names of the `Tollgate` namespace, parsed once.
#[derive(Clone, Debug)]
pub struct Types {
    user: EntityTypeName,
    organization: EntityTypeName,
    role: EntityTypeName,
    project: EntityTypeName,
    dataset: EntityTypeName,
    purpose: EntityTypeName,
    region: EntityTypeName,
    action: EntityTypeName,
}

/// Cedar did not take a value. None that was accepted before should cause it; it denies.
#[derive(Debug, thiserror::Error)]
pub enum EntityError {
    /// An attribute.
    #[error("an attribute is not accepted: {0}")]
    Attribute(#[from] Box<EntityAttrEvaluationError>),
    /// A record.
    #[error("a record is not accepted: {0}")]
    Record(#[from] Box<ExpressionConstructionError>),
    /// The terms of a license.
    #[error("the terms are not accepted: {0}")]
    Terms(#[from] Box<ContextCreationError>),
    /// Something was left open.
    #[error("the terms have unknown parts")]
    Unknown,
}

impl From<ContextCreationError> for EntityError {
    fn from(error: ContextCreationError) -> Self {
        Self::Terms(Box::new(error))
    }
}

impl From<EntityAttrEvaluationError> for EntityError {
    fn from(error: EntityAttrEvaluationError) -> Self {
        Self::Attribute(Box::new(error))
    }
}

impl From<ExpressionConstructionError> for EntityError {
    fn from(error: ExpressionConstructionError) -> Self {
        Self::Record(Box::new(error))
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

impl Types {
    /// Parses the names.
    ///
    /// # Errors
    /// Never, as long as Cedar accepts the names of its own schema.
    pub fn new() -> Result<Self, Box<ParseErrors>> {
        let name = |name: &str| format!("Tollgate::{name}").parse::<EntityTypeName>().map_err(Box::new);
        Ok(Self {
            user: name("User")?,
            organization: name("Organization")?,
            role: name("Role")?,
            project: name("Project")?,
            dataset: name("Dataset")?,
            purpose: name("Purpose")?,
            region: name("Region")?,
            action: name("Action")?,
        })
    }

    /// A user.
    pub fn user(&self, id: &str) -> EntityUid {
        uid(&self.user, id)
    }

    /// An organization.
    pub fn organization(&self, id: &str) -> EntityUid {
        uid(&self.organization, id)
    }

    /// A role.
    pub fn role(&self, id: &str) -> EntityUid {
        uid(&self.role, id)
    }

    /// A project.
    pub fn project(&self, id: &str) -> EntityUid {
        uid(&self.project, id)
    }

    /// A dataset.
    pub fn dataset(&self, path: &str) -> EntityUid {
        uid(&self.dataset, path)
    }

    /// A purpose.
    pub fn purpose(&self, id: &str) -> EntityUid {
        uid(&self.purpose, id)
    }

    /// A region.
    pub fn region(&self, id: &str) -> EntityUid {
        uid(&self.region, id)
    }

    /// An action.
    pub fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }
}

/// An entity with everything that it is in, at any depth.
#[derive(Clone, Debug)]
pub struct Node {
    /// The entity; its parents are all its ancestors.
    pub entity: Shared,
    /// Its id.
    pub uid: EntityUid,
    /// What it is in.
    pub ancestors: Vec<EntityUid>,
    /// What its attributes name: a policy may ask what that is in.
    pub named: Vec<EntityUid>,
}

impl Node {
    pub(super) fn new(
        uid: EntityUid,
        attributes: HashMap<String, RestrictedExpression>,
        ancestors: Vec<EntityUid>,
    ) -> Result<Self, EntityError> {
        let names: Vec<String> = attributes.keys().cloned().collect();
        let entity = Entity::new(uid.clone(), attributes, ancestors.iter().cloned().collect())?;
        let values = names.iter().filter_map(|name| entity.attr(name)?.ok());
        let named = values.flat_map(|value| named(&value)).collect();
        Ok(Self { entity: Shared::new(&entity), uid, ancestors, named })
    }

    /// An entity without attributes.
    pub fn plain(uid: EntityUid, ancestors: Vec<EntityUid>) -> Self {
        Self { entity: Shared::plain(uid.clone(), &ancestors), uid, ancestors, named: Vec::new() }
    }

    /// The entity's uid and ancestors, for the index.
    pub fn lineage(&self) -> super::index::Lineage<'_> {
        super::index::Lineage { itself: &self.uid, ancestors: &self.ancestors }
    }
}

/// The entities that a policy can take out of a value, to ask what they are in. It cannot take
/// one out of a set.
pub fn named(value: &EvalResult) -> Vec<EntityUid> {
    match value {
        EvalResult::EntityUid(uid) => vec![uid.clone()],
        EvalResult::Record(record) => record.iter().flat_map(|(_, value)| named(value)).collect(),
        _ => Vec::new(),
    }
}

/// A license as policies see it, built once when its token is verified.
#[derive(Clone, Debug)]
pub struct CedarLicense {
    /// Its terms.
    pub record: Value,
    /// Tells this license from every other, for remembered answers.
    pub digest: [u8; 32],
    /// What the policies in force leave to ask of it.
    pub(super) residual: Arc<ArcSwapOption<Residual>>,
}

/// What a license is built from.
#[derive(Clone, Copy, Debug)]
pub struct LicenseFacts<'a> {
    /// The SHA-256 of its token.
    pub digest: [u8; 32],
    /// `jti`.
    pub id: &'a str,
    /// `iss`.
    pub issuer: &'a str,
    /// `sub`.
    pub assignee: &'a str,
    /// `terms`.
    pub terms: &'a Terms,
}

/// Builds the policies' view of a license.
///
/// # Errors
/// Never for terms that were accepted; an error here denies.
pub fn license(facts: LicenseFacts<'_>, types: &Types) -> Result<CedarLicense, EntityError> {
    let terms = facts.terms;
    let required = [
        ("id", text(facts.id)),
        ("issuer", text(facts.issuer)),
        ("assignee", RestrictedExpression::new_entity_uid(types.organization(facts.assignee))),
        ("datasets", entity_set(terms.datasets.iter().map(|path| types.dataset(path.as_str())))),
        ("actions", text_set(terms.actions.iter().map(|action| action.as_str()))),
        ("purposes", entity_set(terms.purposes.iter().map(|id| types.purpose(id)))),
        ("prohibitions", text_set(terms.prohibitions.iter().map(|name| name.as_str()))),
        ("regulations", text_set(terms.regulations.iter().map(|name| name.as_str()))),
    ];
    let entities =
        |ids: &BTreeSet<String>, of: &dyn Fn(&str) -> EntityUid| entity_set(ids.iter().map(|id| of(id)));
    let optional = [
        ("tier", terms.tier.as_deref().map(text)),
        ("users", terms.users.as_ref().map(|ids| entities(ids, &|id| types.user(id)))),
        ("roles", terms.roles.as_ref().map(|ids| entities(ids, &|id| types.role(id)))),
        ("projects", terms.projects.as_ref().map(|ids| entities(ids, &|id| types.project(id)))),
        ("regions", terms.regions.as_ref().map(|ids| entities(ids, &|id| types.region(id)))),
        ("environments", terms.environments.as_ref().map(|ids| text_set(ids.iter().map(String::as_str)))),
        ("anonymization", terms.anonymization.as_ref().map(standard).transpose()?),
        ("legal_basis", terms.legal_basis.as_deref().map(text)),
    ];
    let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let members = required.into_iter().chain(optional).map(|(name, value)| (name.to_owned(), value));
    let record = Value::record(&Context::from_pairs(members)?).ok_or(EntityError::Unknown)?;
    Ok(CedarLicense { record, digest: facts.digest, residual: Arc::default() })
}

fn standard(least: &Anonymization) -> Result<RestrictedExpression, EntityError> {
    let number = |number: u32| RestrictedExpression::new_long(i64::from(number));
    let decimal = |number| RestrictedExpression::new_decimal(decimal(number));
    let fields = [
        ("k_anonymity", least.k_anonymity.map(number)),
        ("l_diversity", least.l_diversity.map(number)),
        ("t_closeness", least.t_closeness.map(decimal)),
        ("epsilon", least.epsilon.map(decimal)),
        ("techniques", Some(text_set(least.techniques.iter().map(String::as_str)))),
        ("attested_by", Some(text_set(least.attested_by.iter().map(String::as_str)))),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(RestrictedExpression::new_record(fields)?)
}

/// Cedar's decimals have four digits. Further ones are cut off, which makes the standard stricter,
/// never laxer; reckoning with the number would cut off more than that (0.0003 has no exact double).
fn decimal(number: f64) -> String {
    let written = number.to_string();
    let (whole, fraction) = written.split_once('.').unwrap_or((&written, "0"));
    format!("{whole}.{}", fraction.chars().take(4).collect::<String>())
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn text_set<'a>(values: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.map(text))
}

fn entity_set(uids: impl Iterator<Item = EntityUid>) -> RestrictedExpression {
    RestrictedExpression::new_set(uids.map(RestrictedExpression::new_entity_uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_four_digits_are_exact() {
        for ten_thousandths in (0..=30_000_u32).chain((0..400).map(|n| n * 9_999_937 + 3)) {
            let (whole, fraction) = (ten_thousandths / 10_000, ten_thousandths % 10_000);
            let written = format!("{whole}.{fraction:04}");
            let read: f64 = written.parse().unwrap();
            assert_eq!(format!("{:0<1$}", decimal(read), written.len()), written);
        }
    }

    #[test]
    fn further_digits_make_a_standard_stricter() {
        assert_eq!(decimal(0.000_19), "0.0001");
        assert_eq!(decimal(0.999_99), "0.9999");
        assert_eq!(decimal(1e-300), "0.0000");
        assert_eq!(decimal(1_000_000.0), "1000000.0");
    }
}
