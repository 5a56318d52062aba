//! Hands Cedar what is known already: entities that carry all their ancestors, and values that
//! need no evaluation. Cedar's own constructors would compute both again on every request, which
//! costs several times the decision itself (`docs/decisions/` argues it).
//!
//! The only file that names `cedar-policy-core`, the crate beneath `cedar-policy`. Refuses to be
//! a second meaning: tests hold that what it assembles equals what Cedar constructs.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cedar_policy::entities_errors::EntitiesError;
use cedar_policy::{Context, Entities, Entity, EntityUid};
use cedar_policy_core::ast;
use cedar_policy_core::entities::{NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;

/// An entity that many requests share.
#[derive(Clone, Debug)]
pub struct Shared(Arc<ast::Entity>);

impl Shared {
    /// An entity without attributes.
    pub fn plain(uid: EntityUid, ancestors: &[EntityUid]) -> Self {
        let parents = ancestors.iter().cloned().map(ast::EntityUID::from).collect();
        Self(Arc::new(ast::Entity::new_with_attr_partial_value(uid.into(), [], HashSet::new(), parents, [])))
    }

    /// Shares an entity whose parents are all its ancestors.
    pub fn new(entity: &Entity) -> Self {
        Self(Arc::new(AsRef::<ast::Entity>::as_ref(entity).clone()))
    }

    /// The same attributes under another id, below other entities.
    pub fn renamed(&self, uid: EntityUid, ancestors: &[EntityUid]) -> Self {
        let parents = ancestors.iter().cloned().map(ast::EntityUID::from).collect();
        let attributes = self.0.attrs().map(|(name, value)| (name.clone(), value.clone()));
        Self(Arc::new(ast::Entity::new_with_attr_partial_value(
            uid.into(),
            attributes,
            HashSet::new(),
            parents,
            [],
        )))
    }

    /// The entity in Cedar's public form.
    pub fn entity(&self) -> Entity {
        Entity::from(ast::Entity::clone(&self.0))
    }
}

/// The entities of one request.
///
/// # Errors
/// When two differ under one id.
pub fn entities<'a>(shared: impl IntoIterator<Item = &'a Shared>) -> Result<Entities, Box<EntitiesError>> {
    let entities = shared.into_iter().map(|shared| Arc::clone(&shared.0));
    let assembled = cedar_policy_core::entities::Entities::new().add_entities(
        entities,
        None::<&NoEntitiesSchema>,
        TCComputation::AssumeAlreadyComputed,
        Extensions::all_available(),
    );
    assembled.map(Entities::from).map_err(Box::new)
}

/// A value of a request's context.
#[derive(Clone, Debug)]
pub struct Value(ast::Value);

impl Value {
    /// A truth value.
    pub fn truth(value: bool) -> Self {
        Self(ast::Value::from(value))
    }

    /// A string.
    pub fn text(value: &str) -> Self {
        Self(ast::Value::from(value))
    }

    /// An entity.
    pub fn entity(uid: EntityUid) -> Self {
        Self(ast::Value::from(ast::EntityUID::from(uid)))
    }

    /// A set of entities.
    pub fn entities(uids: impl Iterator<Item = EntityUid>) -> Self {
        Self(ast::Value::set_of_lits(uids.map(|uid| ast::EntityUID::from(uid).into()), None))
    }

    /// A record: a context inside of another. `None` for one with unknown parts.
    pub fn record(context: &Context) -> Option<Self> {
        match context.as_ref() {
            ast::Context::Value(members) => Some(Self(ast::Value::record_arc(members.clone(), None))),
            ast::Context::RestrictedResidual(_) => None,
        }
    }
}

/// Questions about the value by itself; `None` where it is not of the kind that is asked about.
impl Value {
    /// The member of a record.
    pub fn member(&self, name: &str) -> Option<Self> {
        match &self.0.value {
            ast::ValueKind::Record(members) => members.get(name).cloned().map(Self),
            _ => None,
        }
    }

    /// Whether a record has a member.
    pub fn has(&self, name: &str) -> Option<bool> {
        match &self.0.value {
            ast::ValueKind::Record(members) => Some(members.contains_key(name)),
            _ => None,
        }
    }

    /// Whether a set has a text.
    pub fn contains(&self, text: &str) -> Option<bool> {
        Some(self.items()?.authoritative.contains(&ast::Value::from(text)))
    }

    /// Whether a set has nothing.
    pub fn is_empty(&self) -> Option<bool> {
        Some(self.items()?.authoritative.is_empty())
    }

    fn items(&self) -> Option<&ast::Set> {
        match &self.0.value {
            ast::ValueKind::Set(items) => Some(items),
            _ => None,
        }
    }
}

/// A context of these values.
pub fn context(values: impl Iterator<Item = (&'static str, Value)>) -> Context {
    let members: BTreeMap<_, _> = values.map(|(name, value)| (name.into(), value.0)).collect();
    Context::from(ast::Context::Value(Arc::new(members)))
}

#[cfg(test)]
mod tests {
    use cedar_policy::RestrictedExpression as Expression;

    use super::*;

    fn uid(text: &str) -> EntityUid {
        text.parse().unwrap()
    }

    #[test]
    fn entities_are_those_that_cedar_constructs() {
        let above = [uid(r#"Dataset::"sales""#), uid(r#"Dataset::"*""#)];
        let attributes = [("k".to_owned(), Expression::new_long(11))];
        let named = |id: &str| Entity::new(uid(id), attributes.clone().into(), above.clone().into()).unwrap();
        let dataset = named(r#"Dataset::"sales/eu""#);
        let renamed = Shared::new(&dataset).renamed(uid(r#"Dataset::"sales/eu/orders""#), &above);
        let user = Entity::new_no_attrs(uid(r#"User::"ana""#), above.clone().into());
        let assembled =
            entities(&[Shared::new(&dataset), renamed, Shared::plain(user.uid(), &above)]).unwrap();
        let constructed =
            Entities::from_entities([dataset, named(r#"Dataset::"sales/eu/orders""#), user], None).unwrap();
        assert!(assembled.deep_eq(&constructed));
        assert!(assembled.is_ancestor_of(&above[1], &uid(r#"Dataset::"sales/eu/orders""#)));
    }

    #[test]
    fn contexts_are_those_that_cedar_constructs() {
        let inner = Context::from_pairs([("n".to_owned(), Expression::new_long(1))]).unwrap();
        let assembled = context(
            [
                ("truth", Value::truth(true)),
                ("text", Value::text("a")),
                ("entity", Value::entity(uid(r#"User::"ana""#))),
                ("none", Value::entities(std::iter::empty())),
                ("some", Value::entities([uid(r#"User::"ana""#), uid(r#"User::"ben""#)].into_iter())),
                ("record", Value::record(&inner).unwrap()),
            ]
            .into_iter(),
        );
        let user = |id: &str| Expression::new_entity_uid(uid(id));
        let record = Expression::new_record([("n".to_owned(), Expression::new_long(1))]).unwrap();
        let constructed = [
            ("truth", Expression::new_bool(true)),
            ("text", Expression::new_string("a".to_owned())),
            ("entity", user(r#"User::"ana""#)),
            ("none", Expression::new_set([])),
            ("some", Expression::new_set([user(r#"User::"ana""#), user(r#"User::"ben""#)])),
            ("record", record),
        ];
        let constructed =
            Context::from_pairs(constructed.map(|(name, value)| (name.to_owned(), value))).unwrap();
        assert_eq!(assembled.as_ref(), constructed.as_ref());
    }
}
