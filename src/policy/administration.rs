//! Who may administer what: Cedar decides here too, by a schema and policies of its own.
//!
//! Refuses what no policy permits, and whatever cannot be evaluated.

use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression, Schema,
};

use super::load::Text;
use super::validate;
use crate::document::{Problem, Problems};

const OPERATOR: &str = "Tollgate::Administration::Operator";
const ISSUER: &str = "Tollgate::Administration::Issuer";
const ACTION: &str = "Tollgate::Administration::Action";

/// An act of administration, as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// Who acts.
    pub operator: &'a str,
    /// `read` or `operate`.
    pub scope: &'a str,
    /// What is done: the name of the call, such as `RevokeLicense`.
    pub name: &'a str,
    /// With licenses of which issuer; `None` for all.
    pub issuer: Option<&'a str>,
    /// With what in particular: a kind, such as `license`, and its id.
    pub about: Option<(&'a str, &'a str)>,
}

/// An act is not permitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// No policy permits it.
    #[error("no policy permits `{operator}`, of scope `{scope}`, to do `{act}`")]
    NotPermitted {
        /// Who.
        operator: String,
        /// Of which scope.
        scope: String,
        /// What.
        act: String,
    },
    /// Policies forbid it.
    #[error("forbidden by {0}")]
    ByPolicies(String),
    /// The policies could not be evaluated.
    #[error("the policies could not be evaluated: {0}")]
    Error(String),
}

/// The policies about administration, compiled.
#[derive(Debug)]
pub(super) struct Rules {
    schema: Schema,
    policies: PolicySet,
}

impl Rules {
    /// Compiles the built-in schema with these policies.
    pub(super) fn compile(schema: &Text, policies: &[Text]) -> Result<Self, Problems> {
        let problem =
            |error: &dyn std::fmt::Display| Problems::from(Problem::new(&schema.origin, error.to_string()));
        let (parsed, _) = Schema::from_cedarschema_str(&schema.content).map_err(|error| problem(&error))?;
        let rules = validate::rules(policies, &parsed)?;
        let policies = PolicySet::from_policies(rules.into_iter().map(|rule| rule.policy));
        Ok(Self { schema: parsed, policies: policies.map_err(|error| problem(&error))? })
    }

    /// Whether an act is permitted.
    pub(super) fn judge(&self, act: Act<'_>) -> Result<(), Forbidden> {
        let failed = |error: &dyn std::fmt::Display| Forbidden::Error(error.to_string());
        let uid = |kind: &str, id: &str| {
            let kind = EntityTypeName::from_str(kind).map_err(|error| failed(&error))?;
            Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
        };
        let (operator, issuer) = (uid(OPERATOR, act.operator)?, uid(ISSUER, act.issuer.unwrap_or("*"))?);
        let about = act.about.into_iter().flat_map(|(kind, id)| [("kind", kind), ("id", id)]);
        let pairs =
            about.map(|(name, text)| (name.to_owned(), RestrictedExpression::new_string(text.to_owned())));
        let context = Context::from_pairs(pairs).map_err(|error| failed(&error))?;
        let request =
            Request::new(operator.clone(), uid(ACTION, act.name)?, issuer, context, Some(&self.schema))
                .map_err(|error| failed(&error))?;
        let scope = ("scope".to_owned(), RestrictedExpression::new_string(act.scope.to_owned()));
        let entity = Entity::new(operator, [scope].into(), [].into()).map_err(|error| failed(&error))?;
        let actions = self.schema.action_entities().map_err(|error| failed(&error))?;
        let entities: Entities =
            actions.add_entities([entity], Some(&self.schema)).map_err(|error| failed(&error))?;
        let answer = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let errors: Vec<String> = answer.diagnostics().errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            return Err(Forbidden::Error(errors.join("; ")));
        }
        if answer.decision() == Decision::Allow {
            return Ok(());
        }
        let forbidding: Vec<String> = answer.diagnostics().reason().map(|id| format!("`{id}`")).collect();
        if forbidding.is_empty() {
            let (operator, scope, act) = (act.operator.into(), act.scope.into(), act.name.into());
            return Err(Forbidden::NotPermitted { operator, scope, act });
        }
        Err(Forbidden::ByPolicies(forbidding.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Sources;
    use super::*;

    fn rules(own: &str) -> Result<Rules, Problems> {
        let sources = Sources::built_in();
        let mut policies = sources.administration.clone();
        policies.push(Text { origin: "own.cedar".to_owned(), content: own.to_owned() });
        Rules::compile(&sources.administration_schema, &policies)
    }

    fn act<'a>(scope: &'a str, name: &'a str) -> Act<'a> {
        Act { operator: "ci", scope, name, issuer: Some("i"), about: Some(("license", "l")) }
    }

    #[test]
    fn scopes_say_what_may_be_done() {
        let rules = rules("").unwrap();
        for (scope, name, may) in [
            ("read", "GetLicense", true),
            ("read", "GetUsage", true),
            ("read", "RevokeLicense", false),
            ("operate", "RevokeLicense", true),
            ("operate", "ListLicenses", true),
            ("", "ListLicenses", false),
            ("admin", "RevokeLicense", false),
        ] {
            assert_eq!(rules.judge(act(scope, name)).is_ok(), may, "{scope} {name}");
        }
        assert!(matches!(rules.judge(act("operate", "Unknown")), Err(Forbidden::Error(_))));
    }

    #[test]
    fn operators_add_rules_of_their_own() {
        let own = r#"@id("house/not-all")
            @reason("Whole issuers are ended by two people.")
            @admin("`ci` asked for all licenses")
            @passes("a person does it")
            forbid (principal == Tollgate::Administration::Operator::"ci", action, resource)
            when { context has kind && context.kind == "issuer" };"#;
        let rules = rules(own).unwrap();
        assert!(rules.judge(act("operate", "RevokeLicense")).is_ok());
        let all = Act { about: Some(("issuer", "")), ..act("operate", "RevokeLicense") };
        assert_eq!(rules.judge(all), Err(Forbidden::ByPolicies("`house/not-all`".to_owned())));
    }

    #[test]
    fn what_the_schema_does_not_know_does_not_load() {
        let problems = rules("forbid (principal, action, resource) when { principal.age > 3 };");
        assert!(problems.unwrap_err().to_string().contains("own.cedar"));
    }
}
