//! Searches: what is found is what an evaluation allows, page by page, and nothing is used up by it.

use serde_json::{Value, json};

use super::{Described, EVALUATION, WITH_POLICIES, bearing, evaluation, site};
use crate::gate::Gate;
use crate::web::Reply;

const SUBJECT: &str = "/access/v1/search/subject";
const RESOURCE: &str = "/access/v1/search/resource";
const ACTION: &str = "/access/v1/search/action";

/// Datasets of which those below `sales/eu` and `shared` are licensed.
fn catalog() -> Value {
    let dataset = |id: &str, parents: Value| json!({"uid": {"type": "Tollgate::Dataset", "id": id}, "attrs": {}, "parents": parents});
    let bundle = json!([{"type": "Tollgate::Dataset", "id": "bundles/eu"}]);
    let sales = (0..5).map(|number| dataset(&format!("sales/eu/{number}"), json!([])));
    let others = [dataset("sales/us", json!([])), dataset("shared/list", bundle), dataset("hr", json!([]))];
    sales.chain(others).collect()
}

fn start() -> (Gate, String) {
    let site = site();
    site.write("catalog.json", &catalog().to_string());
    let mut claims = site.issuer.claims("license-1");
    claims["terms"]["datasets"] = json!(["bundles/eu", "sales/eu"]);
    claims["terms"]["actions"] = json!(["read", "export", "train"]);
    claims["terms"]["users"] = json!(["ana", "bo", "cy"]);
    claims["terms"]["quotas"] =
        json!([{"id": "once", "metric": "requests", "limit": 1, "per": "license", "window": "total"}]);
    let header = bearing(&site.issuer.sign(&claims));
    (site.start(&[WITH_POLICIES, ("policies.catalog", "catalog.json")]), header)
}

fn found(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.body.starts_with("{\"page\":"), "the page comes first");
    let page = reply.json();
    let results = page["results"].as_array().unwrap();
    assert_eq!(page["page"]["count"], results.len());
    let name = |result: &Value| result["id"].as_str().or(result["name"].as_str()).unwrap().to_owned();
    results.iter().map(name).collect()
}

#[tokio::test]
async fn what_is_found_is_what_is_allowed_and_nothing_is_used_up() {
    let (gate, header) = start();
    let license = [("authorization", header.as_str()), ("x-request-id", "s")];
    let mut web = Described::of(&gate);
    let mut question = evaluation("read");
    question["context"]["supported_obligations"] = json!(["notify"]);

    let datasets = web.post(RESOURCE, &license, &question);
    assert_eq!(datasets.header("x-request-id"), Some("s"));
    let eu = (0..5).map(|number| format!("sales/eu/{number}"));
    let expected: Vec<String> = ["bundles/eu", "sales/eu"]
        .map(str::to_owned)
        .into_iter()
        .chain(eu)
        .chain(["shared/list".to_owned()])
        .collect();
    assert_eq!(found(&datasets), expected);
    let page = datasets.json();
    assert_eq!((&page["page"]["next_token"], &page["results"][0]["type"]), (&json!(""), &json!("dataset")));
    assert_eq!(
        (&page["context"]["exhaustive"], &page["context"]["codes"]),
        (&json!(false), &json!(["DATASET_NOT_LICENSED"]))
    );

    let users = web.post(SUBJECT, &license, &question);
    assert_eq!(found(&users), ["ana", "bo", "cy"]);
    assert_eq!(
        (&users.json()["results"][0]["type"], &users.json()["context"]["exhaustive"]),
        (&json!("user"), &json!(true))
    );

    question.as_object_mut().unwrap().remove("action");
    assert_eq!(found(&web.post(ACTION, &license, &question)), ["read", "train", "export"]);
    question["resource"]["properties"] = json!({"status": "archived"});
    assert_eq!(found(&web.post(ACTION, &license, &question)), [""; 0]);

    // The quota of one request is still whole, and no record tells of a use.
    assert_eq!(web.post(EVALUATION, &license, &evaluation("read")).json()["decision"], true);
    question["resource"]["properties"] = json!({});
    let spent = web.post(ACTION, &license, &question);
    assert_eq!(found(&spent), [""; 0]);
    assert!(spent.json()["context"]["codes"].as_array().unwrap().contains(&json!("QUOTA_EXCEEDED")));
    assert_eq!(gate.stop().await.site.records().len(), 1);
}

#[tokio::test]
async fn what_is_not_known_is_not_found() {
    let (gate, header) = start();
    let mut web = Described::of(&gate);
    let mut search = |path: &str, license: &str, change: &dyn Fn(&mut Value)| {
        let mut question = evaluation("read");
        change(&mut question);
        let reply = web.post(path, &[("authorization", license)], &question);
        (found(&reply), reply.json()["context"].clone())
    };
    for (path, pointer, value) in [
        (ACTION, "/subject/id", "nobody"),
        (SUBJECT, "/subject/type", "spaceship"),
        (RESOURCE, "/resource/type", "record"),
        (RESOURCE, "/action/name", "write"),
    ] {
        let change = |question: &mut Value| *question.pointer_mut(pointer).unwrap() = value.into();
        assert_eq!(search(path, &header, &change).0, [""; 0], "{path}");
    }
    let (none, context) = search(RESOURCE, "License forged", &|_| {});
    assert_eq!((none.len(), &context["codes"]), (0, &json!(["LICENSE_MALFORMED"])));
    // Anyone of the organization may, and that is no list.
    let anyone = bearing(&gate.site().issuer.license("license-2"));
    let (none, context) = search(SUBJECT, &anyone, &|_| {});
    assert_eq!((none.len(), &context["exhaustive"]), (0, &json!(false)));
}

#[tokio::test]
async fn pages_join_to_the_whole_and_tokens_belong_to_one_search() {
    let (gate, header) = start();
    let license = [("authorization", header.as_str())];
    let mut web = Described::of(&gate);
    let mut question = evaluation("read");
    let whole = found(&web.post(RESOURCE, &license, &question));
    let (mut joined, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        // As in the specification's example, only the first request says how large a page is.
        question["page"] = if token.is_empty() { json!({"limit": 3}) } else { json!({"token": token}) };
        let reply = web.post(RESOURCE, &license, &question);
        let part = found(&reply);
        assert!(part.len() <= 3, "{part:?}");
        joined.extend(part);
        pages += 1;
        token = reply.json()["page"]["next_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
        question["page"] = json!({"token": token, "limit": 3});
        assert_eq!(web.post(RESOURCE, &license, &question).status, 200);
    }
    assert_eq!((joined, pages), (whole, 3));

    question["page"] = json!({"limit": 0});
    let nothing = web.post(RESOURCE, &license, &question);
    assert_eq!(found(&nothing), [""; 0]);
    let token = nothing.json()["page"]["next_token"].clone();
    let mut refused = |path: &str, field: &str, change: &dyn Fn(&mut Value)| {
        let mut question = evaluation("read");
        question["page"] = json!({"token": token});
        change(&mut question);
        let reply = web.post(path, &license, &question);
        assert_eq!((reply.status, &reply.json()["field"]), (400, &json!(field)), "{}", reply.body);
    };
    refused(RESOURCE, "page.token", &|question| question["context"]["purpose"] = "Marketing".into());
    refused(RESOURCE, "page.token", &|question| question["subject"]["id"] = "bo".into());
    refused(RESOURCE, "page.token", &|question| question["context"]["license_id"] = "license-1".into());
    refused(SUBJECT, "page.token", &|_| {});
    refused(RESOURCE, "page.limit", &|question| question["page"]["limit"] = 5.into());
    refused(RESOURCE, "page.limit", &|question| question["page"]["limit"] = json!(-1));
    refused(RESOURCE, "page.token", &|question| question["page"]["token"] = "AAAA".into());
    refused(RESOURCE, "page", &|question| question["page"] = 5.into());

    gate.site().write("catalog.json", "[]");
    crate::gate::eventually("the catalog is read", async || {
        !gate.part("policies").1.contains(&revision(&nothing))
    })
    .await;
    refused(RESOURCE, "page.token", &|_| {});
}

fn revision(reply: &Reply) -> String {
    reply.json()["context"]["policy_revision"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_search_without_what_it_needs_is_refused() {
    let (gate, _) = start();
    let mut web = Described::of(&gate);
    for (path, pointer) in [
        (SUBJECT, "/action"),
        (SUBJECT, "/resource/id"),
        (SUBJECT, "/subject/type"),
        (RESOURCE, "/subject"),
        (RESOURCE, "/subject/id"),
        (RESOURCE, "/resource/type"),
        (ACTION, "/resource"),
        (ACTION, "/resource/id"),
    ] {
        let mut question = evaluation("read");
        let (holder, name) = pointer.rsplit_once('/').unwrap();
        question.pointer_mut(holder).unwrap().as_object_mut().unwrap().remove(name);
        let reply = web.post(path, &[], &question);
        assert_eq!((reply.status, &reply.json()["field"]), (400, &json!(pointer[1..].replace('/', "."))));
    }
    let mut large = evaluation("read");
    large["context"]["time"] = "t".repeat(64 << 10).into();
    assert_eq!(web.post(RESOURCE, &[], &large).status, 413);
}
