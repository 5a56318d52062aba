//! Picks the few policies that can apply to a request, by their scopes.
//!
//! Its law, held by a property test: same decision, same reasons, same errors as asking
//! every policy. It may pick a policy that does not apply; it never leaves out one that could.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, EntityUid, Policy, PolicySet, PolicySetError, PrincipalConstraint, ResourceConstraint,
};

/// What hangs on one part of a scope: on any entity, or on being within one.
#[derive(Debug, Default)]
struct Level<T> {
    any: Option<T>,
    within: HashMap<EntityUid, T>,
}

impl<T: Default> Level<T> {
    /// The place of a scope: `None` for any.
    fn entry(&mut self, scope: Option<EntityUid>) -> &mut T {
        match scope {
            None => self.any.get_or_insert_default(),
            Some(uid) => self.within.entry(uid).or_default(),
        }
    }

    /// What hangs on any entity, on this one, and on those that it is in.
    fn reached<'a>(&'a self, part: Lineage<'a>) -> impl Iterator<Item = &'a T> {
        let of_lineage = std::iter::once(part.itself).chain(part.ancestors);
        self.any.iter().chain(of_lineage.filter_map(|uid| self.within.get(uid)))
    }
}

/// Policies by resource, then principal, then action.
#[derive(Debug, Default)]
pub struct Index {
    buckets: Level<Level<Level<PolicySet>>>,
}

/// A part of a request: the entity and everything that it is in.
#[derive(Clone, Copy, Debug)]
pub struct Lineage<'a> {
    /// The entity.
    pub itself: &'a EntityUid,
    /// What it is in, at any depth.
    pub ancestors: &'a [EntityUid],
}

impl Index {
    /// An index of the policies.
    ///
    /// # Errors
    /// When two policies have the same id.
    pub fn build<'a>(policies: impl Iterator<Item = &'a Policy>) -> Result<Self, Box<PolicySetError>> {
        let mut index = Self::default();
        for policy in policies {
            let resource = resource_scope(policy.resource_constraint());
            let principal = principal_scope(policy.principal_constraint());
            for action in action_scopes(policy.action_constraint()) {
                let by_action = index.buckets.entry(resource.clone()).entry(principal.clone());
                by_action.entry(action).add(policy.clone()).map_err(Box::new)?;
            }
        }
        Ok(index)
    }

    /// The sets whose policies can apply. A policy that names several actions may be in more than one.
    pub fn select<'a>(
        &'a self,
        principal: Lineage<'a>,
        action: Lineage<'a>,
        resource: Lineage<'a>,
    ) -> Vec<&'a PolicySet> {
        let by_principal = self.buckets.reached(resource);
        let by_action = by_principal.flat_map(|level| level.reached(principal));
        by_action.flat_map(|level| level.reached(action)).collect()
    }
}

fn principal_scope(constraint: PrincipalConstraint) -> Option<EntityUid> {
    match constraint {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) | PrincipalConstraint::IsIn(_, uid) => {
            Some(uid)
        }
    }
}

fn resource_scope(constraint: ResourceConstraint) -> Option<EntityUid> {
    match constraint {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => {
            Some(uid)
        }
    }
}

/// An action may be in several groups, so a policy stands under each that it names, once.
fn action_scopes(constraint: ActionConstraint) -> HashSet<Option<EntityUid>> {
    match constraint {
        ActionConstraint::Any => HashSet::from([None]),
        ActionConstraint::Eq(uid) => HashSet::from([Some(uid)]),
        ActionConstraint::In(uids) => uids.into_iter().map(Some).collect(),
    }
}
