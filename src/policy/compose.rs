//! Grant by conjunction: the `forbid` policies that look at every request are asked as one.
//!
//! Each is written once, as a `forbid`; here their negations are joined into one `permit`,
//! which allows exactly when none of them objects and none of them errs. An error in a
//! permit can only deny. Refuses to name who objected: that is asked of the parts.

use cedar_policy::{ActionConstraint, Effect, Policy, PolicyId, PrincipalConstraint, ResourceConstraint};
use serde_json::{Value, json};

/// The id of the composed policy; no policy of a file can have it.
pub const COMPOSED_ID: &str = "(composed)";

/// What could not be composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Cedar could not write a policy as JSON.
    #[error("policy `{0}` has no JSON form: {1}")]
    ToJson(PolicyId, Box<cedar_policy::PolicyToJsonError>),
    /// Cedar did not accept the composed policy.
    #[error("the composed policy is not accepted: {0}")]
    FromJson(Box<cedar_policy::PolicyFromJsonError>),
    /// Nor a set of it.
    #[error(transparent)]
    Set(Box<cedar_policy::PolicySetError>),
}

impl From<cedar_policy::PolicySetError> for ComposeError {
    fn from(error: cedar_policy::PolicySetError) -> Self {
        Self::Set(Box::new(error))
    }
}

/// Whether the policy looks at every request, whoever asks for whatever.
pub fn looks_at_everything(policy: &Policy) -> bool {
    policy.principal_constraint() == PrincipalConstraint::Any
        && policy.action_constraint() == ActionConstraint::Any
        && policy.resource_constraint() == ResourceConstraint::Any
}

/// Whether the policy is part of the conjunction.
pub fn is_term(policy: &Policy) -> bool {
    policy.effect() == Effect::Forbid && looks_at_everything(policy)
}

/// The condition that holds when none of `terms` objects.
///
/// # Errors
/// When Cedar cannot turn a policy into JSON, which its validation should exclude.
pub fn conjunction<'a>(terms: impl Iterator<Item = &'a Policy>) -> Result<Value, ComposeError> {
    let mut holds = Vec::new();
    for term in terms {
        let form =
            term.to_json().map_err(|error| ComposeError::ToJson(term.id().clone(), Box::new(error)))?;
        holds.push(not(objection(form)));
    }
    Ok(all(holds))
}

/// One permit under a condition.
///
/// # Errors
/// When Cedar does not accept the condition.
pub fn permit(condition: Value) -> Result<Policy, ComposeError> {
    let any = || json!({ "op": "All" });
    // The macro copies what it is given; the condition may be large.
    let condition = node([("kind", json!("when")), ("body", condition)]);
    let form = node([
        ("effect", json!("permit")),
        ("principal", any()),
        ("action", any()),
        ("resource", any()),
        ("conditions", Value::Array(vec![condition])),
    ]);
    Policy::from_json(Some(PolicyId::new(COMPOSED_ID)), form)
        .map_err(|error| ComposeError::FromJson(Box::new(error)))
}

/// What joins truths.
const OPERATORS: [&str; 4] = ["!", "&&", "||", "if-then-else"];

/// The same condition where some truths are `known`: it holds, fails and errs exactly as before. What
/// could err stays, unless Cedar would not have come to it.
pub fn fold(expression: Value, known: &impl Fn(&Value) -> Option<bool>) -> Value {
    if let Some(truth) = known(&expression) {
        return literal(truth);
    }
    let mut expression = expression;
    let operator = OPERATORS.into_iter().find(|operator| expression.get(operator).is_some());
    let Some(operator) = operator else { return expression };
    let mut operands = expression.get_mut(operator).map(Value::take).unwrap_or_default();
    let mut operand = |name: &str| operands.get_mut(name).map(Value::take).unwrap_or_default();
    match operator {
        "!" => match fold(operand("arg"), known) {
            folded if truth(&folded).is_some() => literal(truth(&folded) == Some(false)),
            folded => not(folded),
        },
        "if-then-else" => {
            let condition = fold(operand("if"), known);
            match truth(&condition) {
                Some(true) => fold(operand("then"), known),
                Some(false) => fold(operand("else"), known),
                None => {
                    let (then, other) = (fold(operand("then"), known), fold(operand("else"), known));
                    node([(operator, node([("if", condition), ("then", then), ("else", other)]))])
                }
            }
        }
        _ => {
            let decisive = operator == "||";
            let left = fold(operand("left"), known);
            match truth(&left) {
                Some(truth) if truth == decisive => left,
                Some(_) => fold(operand("right"), known),
                None => {
                    let right = fold(operand("right"), known);
                    if truth(&right) == Some(!decisive) {
                        return left;
                    }
                    node([(operator, node([("left", left), ("right", right)]))])
                }
            }
        }
    }
}

fn literal(truth: bool) -> Value {
    json!({ "Value": truth })
}

fn truth(expression: &Value) -> Option<bool> {
    expression.get("Value")?.as_bool()
}

/// All of the expressions, evaluated in order up to the first that does not hold. Joined as a
/// balanced tree: Cedar evaluates by recursion, and its depth is bounded.
fn all(mut expressions: Vec<Value>) -> Value {
    if expressions.len() > 1 {
        let right = expressions.split_off(expressions.len() / 2);
        let operands = node([("left", all(expressions)), ("right", all(right))]);
        return node([("&&", operands)]);
    }
    expressions.pop().unwrap_or_else(|| literal(true))
}

/// The condition under which a `forbid` objects, in the order in which Cedar evaluates it.
fn objection(mut form: Value) -> Value {
    let conditions = form.get_mut("conditions").and_then(Value::as_array_mut).map(std::mem::take);
    let condition = |mut condition: Value| {
        let body = condition.get_mut("body").map(Value::take).unwrap_or_default();
        let unless = condition.get("kind").and_then(Value::as_str) == Some("unless");
        if unless { not(body) } else { body }
    };
    all(conditions.unwrap_or_default().into_iter().map(condition).collect())
}

/// The negation; a double one is dropped, which spares the evaluator two steps a term.
fn not(mut expression: Value) -> Value {
    match expression.get_mut("!").and_then(|not| not.get_mut("arg")) {
        Some(inner) => inner.take(),
        None => node([("!", node([("arg", expression)]))]),
    }
}

fn node<const N: usize>(members: [(&str, Value); N]) -> Value {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
