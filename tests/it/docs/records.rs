//! `docs/records.md`: every member of a record, and every metric, of a gate that really ran.

use std::collections::BTreeSet;

use serde_json::Value;
use tollgate::proto::v1::CheckRequest;
use tonic::Request;

use crate::gate::{Site, ask};
use crate::order::root;
use crate::tls::{Authority, install};

/// The rows of a table: what stands in backticks in the first cell, and in the second.
fn rows(section: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let page = std::fs::read_to_string(root().join("docs/records.md")).unwrap();
    let (_, after) = page.split_once(section).unwrap();
    let section = after.split("\n## ").next().unwrap();
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1);
        (words(cells.next().unwrap()), words(cells.next().unwrap()))
    })
    .collect()
}

/// The metrics of a page of Prometheus, each with the labels that are ours.
fn metrics(page: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let ours = names.filter(|name| name.starts_with("tollgate_"));
    ours.map(|name| {
        let series = page.lines().filter_map(|line| line.strip_prefix(name)?.split_once('{'));
        let series = series.filter(|(suffix, _)| ["", "_bucket"].contains(suffix));
        let labels = series.flat_map(|(_, labels)| labels.split(['=', ',']).step_by(2));
        let labels =
            labels.filter(|label| *label != "le" && !label.starts_with("otel_") && !label.contains(' '));
        (name.to_owned(), labels.map(str::to_owned).collect())
    })
    .collect()
}

#[tokio::test]
async fn records_page_is_current() {
    // On a dry run, where records have every member that there is.
    let site = Site::new();
    install(&site, Authority::new().sign_for("localhost"));
    let gate = site.start(&[
        ("gate.dry_run_all", "true"),
        ("listeners.hub.unix", "hub.sock"),
        ("listeners.administration.tls.certificate", "tls.crt"),
        ("listeners.administration.tls.key", "tls.key"),
    ]);
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
    let shown = metrics(&gate.get("/metrics").1);
    let records = gate.stop().await.site.records();
    let Some(Value::Object(record)) = records.first() else { panic!("{records:?}") };
    let members: BTreeSet<String> = record.keys().cloned().collect();
    let listed = rows("## The decision log").into_iter().flat_map(|(names, _)| names);
    assert_eq!(listed.collect::<BTreeSet<_>>(), members);
    let listed = rows("## Metrics").into_iter();
    let listed = listed.map(|(name, labels)| (name.concat(), labels.into_iter().collect()));
    assert_eq!(listed.collect::<BTreeSet<_>>(), shown);
}
