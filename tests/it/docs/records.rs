//! `docs/records.md`: every member of a record, and every metric, of a gate that really ran.

use std::collections::BTreeSet;

use serde_json::Value;
use tollgate::proto::v1::CheckRequest;
use tonic::Request;

use crate::gate::{Gate, ask};
use crate::order::root;

/// What stands in backticks in the first cell of each row of a section.
fn listed(section: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/records.md")).unwrap();
    let (_, after) = page.split_once(section).unwrap();
    let section = after.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells
        .flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn records_page_is_current() {
    let gate = Gate::start(&[]);
    let mut question = Request::new(CheckRequest {
        combined_with: vec!["sales/us".to_owned(); 65],
        ..ask(&gate.site().issuer.license("license-1"))
    });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    question.metadata_mut().insert("traceparent", parent.parse().unwrap());
    gate.client().await.check(question).await.unwrap();
    // Something that cannot be decided is counted too.
    let no_number = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(f64::NAN)) };
    let malformed = prost_types::Struct { fields: [("age".to_owned(), no_number)].into() };
    let malformed = CheckRequest { context: Some(malformed), ..CheckRequest::default() };
    assert!(gate.client().await.check(malformed).await.is_err());
    let metrics = gate.get("/metrics").1;
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let names: BTreeSet<String> =
        names.filter(|name| name.starts_with("tollgate_")).map(str::to_owned).collect();
    let records = gate.stop().await.site.records();
    let Some(Value::Object(record)) = records.first() else { panic!("{records:?}") };
    let members: BTreeSet<String> = record.keys().cloned().collect();
    assert_eq!(listed("## The decision log"), members);
    assert_eq!(listed("## Metrics"), names);
}
