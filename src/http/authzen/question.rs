//! The mapping from AuthZEN's words to the gate's own, which `docs/authzen.md` tells.
//!
//! Refuses a member that is missing or of another type than it must be. Members that neither AuthZEN
//! nor the gate knows are left alone, as AuthZEN wants it, but for those of `context`: they are the
//! operator's own attributes, and whether they are declared is for the policies to judge.

use serde_json::{Map, Value};

use super::members::{Members, flag, number, object, text, texts};
use crate::decision::Sought;
use crate::domain::request::{Holder, Resource, Subject};
use crate::domain::{CheckRequest, Code, LicenseRef, Reason};
use crate::http::malformed::Malformed;

/// The question that the body of an evaluation asks; `token` is the license of the request's head,
/// which stands where the body names none.
///
/// # Errors
/// The first member that is missing or of a wrong type.
pub fn question(body: Map<String, Value>, token: Option<&str>) -> Result<CheckRequest, Malformed> {
    read(&mut Members(body), token, None)
}

/// The same, where the part that is `sought` has no name yet; one that it has all the same is ignored.
pub(super) fn read(
    body: &mut Members,
    token: Option<&str>,
    sought: Option<Sought>,
) -> Result<CheckRequest, Malformed> {
    let mut question = CheckRequest::default();
    let subject = body.need("subject", |value| {
        subject(object(value)?, sought == Some(Sought::Subject), &mut question.problems)
    })?;
    if sought != Some(Sought::Action) {
        question.action = body.need("action", |value| action(object(value)?))?;
    }
    question.resource =
        body.need("resource", |value| resource(object(value)?, sought == Some(Sought::Resource)))?;
    question.subject = subject;
    if let Some(token) = token {
        question.license = LicenseRef::Token(token.to_owned());
    }
    body.take("context", |value| context(object(value)?, &mut question))?;
    Ok(question)
}

fn subject(mut members: Members, is_sought: bool, problems: &mut Vec<Reason>) -> Result<Subject, Malformed> {
    let kind = members.need("type", text)?;
    if kind != "user" {
        let admin = format!("subject.type: `{kind}` is not a type of subject");
        let remedy = "`subject.type` is `user`, for a person or a workload";
        problems.push(Reason::new(Code::ContextInvalid, admin).would_pass_if(remedy));
    }
    let id = if is_sought { String::new() } else { members.need("id", text)? };
    let mut subject = Subject { id, ..Subject::default() };
    members.take("properties", |value| {
        let mut properties = object(value)?;
        subject.organization = properties.take("organization", text)?.unwrap_or_default();
        subject.roles = properties.take("roles", texts)?.unwrap_or_default();
        Ok(())
    })?;
    Ok(subject)
}

fn action(mut members: Members) -> Result<String, Malformed> {
    let name = members.need("name", text)?;
    members.take("properties", object)?;
    Ok(name)
}

fn resource(mut members: Members, is_sought: bool) -> Result<Resource, Malformed> {
    Ok(Resource {
        kind: members.need("type", text)?,
        id: if is_sought { String::new() } else { members.need("id", text)? },
        properties: members.take("properties", object)?.unwrap_or_default().rest(),
    })
}

fn context(mut members: Members, question: &mut CheckRequest) -> Result<(), Malformed> {
    match (members.take("license", text)?, members.take("license_id", text)?) {
        (None, None) => {}
        (Some(token), None) => question.license = LicenseRef::Token(token),
        (None, Some(id)) => question.license = LicenseRef::Id(id),
        (Some(_), Some(_)) => return Err(Malformed::at("license_id", "is given beside `license`; give one")),
    }
    for (name, field) in [
        ("purpose", &mut question.purpose),
        ("region", &mut question.region),
        ("project", &mut question.project),
        ("environment", &mut question.environment),
        ("request_id", &mut question.request_id),
    ] {
        *field = members.take(name, text)?.unwrap_or_default();
    }
    for (name, field) in [
        ("combined_with_external", &mut question.combined_with_external),
        ("explain", &mut question.explain),
        ("dry_run", &mut question.dry_run),
    ] {
        *field = members.take(name, flag)?.unwrap_or_default();
    }
    for (name, field) in [
        ("combined_with", &mut question.combined_with),
        ("supported_obligations", &mut question.supported_obligations),
    ] {
        *field = members.take(name, texts)?.unwrap_or_default();
    }
    question.holder = members.take("holder", |value| holder(object(value)?))?.unwrap_or_default();
    members.take("usage", |value| {
        let amounts = object(value)?.0.into_iter();
        let amounts = amounts.map(|(metric, amount)| match number(amount) {
            Ok(amount) => Ok((metric, amount)),
            Err(malformed) => Err(malformed.within(&metric)),
        });
        question.usage = amounts.collect::<Result<_, _>>()?;
        Ok(())
    })?;
    let mut attributes = members.take("attributes", object)?.unwrap_or_default();
    for (name, value) in members.0 {
        if attributes.0.contains_key(&name) {
            return Err(Malformed::at(Malformed::shown(&name), "is given in `attributes` too; give it once"));
        }
        attributes.0.insert(name, value);
    }
    question.context = attributes.rest();
    Ok(())
}

fn holder(mut members: Members) -> Result<Holder, Malformed> {
    Ok(Holder {
        spiffe_id: members.take("spiffe_id", text)?.unwrap_or_default(),
        certificate_thumbprint: members.take("certificate_thumbprint", text)?.unwrap_or_default(),
        jwk_thumbprint: members.take("jwk_thumbprint", text)?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
