//! `docs/openapi.json`, and the tables of `docs/authzen.md`: what is asked and answered, member by member.

use serde_json::Value;

use super::{assert_blocks_current, assert_current};

/// The members of these schemas, each by the name of its holder.
fn table(schemas: &[(&str, &str)]) -> String {
    let document = tollgate::http::openapi::document();
    let mut out = "| member | | |\n|---|---|---|\n".to_owned();
    for (holder, name) in schemas {
        let schema = &document["components"]["schemas"][name];
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (member, is) in schema["properties"].as_object().unwrap() {
            let words = is["description"].as_str().unwrap();
            let must = if required.contains(&Value::from(member.as_str())) { ", always" } else { "" };
            out.push_str(&format!("| `{holder}{member}` | {}{must} | {words} |\n", kind(is)));
        }
    }
    out
}

fn kind(schema: &Value) -> String {
    match (schema["type"].as_str(), &schema["items"]) {
        (Some("array"), Value::Object(items)) => match items.get("type").and_then(Value::as_str) {
            Some(kind) => format!("list of {kind}s"),
            None => "list of objects".to_owned(),
        },
        (Some(kind), _) => kind.to_owned(),
        (None, _) => "object".to_owned(),
    }
}

#[test]
fn authzen_page_is_current() {
    let asked = [
        ("subject.", "Subject"),
        ("subject.properties.", "SubjectProperties"),
        ("action.", "Action"),
        ("resource.", "Resource"),
        ("context.", "Context"),
        ("context.holder.", "Holder"),
    ];
    let answered = [("", "DecidedContext"), ("reasons[].", "ReasonAnswer"), ("quotas[].", "QuotaAnswer")];
    let found = [("page.", "NextPage"), ("context.", "SearchContext")];
    let blocks = [("question", table(&asked)), ("answer", table(&answered)), ("search", table(&found))];
    assert_blocks_current("docs/authzen.md", &blocks);
}

#[test]
fn openapi_document_is_current() {
    let text = serde_json::to_string_pretty(&tollgate::http::openapi::document()).unwrap();
    assert_current("docs/openapi.json", &format!("{text}\n"));
}
