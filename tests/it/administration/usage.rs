//! Usage from outside: what checks used is told as a table, as CSV and as JSON.

use serde_json::{Value, json};
use tollgate::proto::v1::{CheckRequest, Subject};

use super::{OVER_UNIX, admin};
use crate::gate::{Gate, ask, eventually, is_allowed};

#[tokio::test]
async fn usage_is_told_as_a_table_as_csv_and_as_json() {
    let gate = Gate::start(&[OVER_UNIX]);
    let mut claims = gate.site().issuer.claims("license-1");
    let quota = json!({"id": "q", "metric": "rows", "limit": 1000, "per": "license", "window": "day"});
    claims["terms"]["quotas"] = json!([quota]);
    let user = "ana, \"the first\"";
    let question = CheckRequest {
        subject: Some(Subject { id: user.into(), organization: "acme".into(), roles: Vec::new() }),
        project: "research".into(),
        usage: [("rows".to_owned(), 5.0)].into(),
        ..ask(&gate.site().issuer.sign(&claims))
    };
    for _ in 0..3 {
        let answer = gate.check(question.clone()).await;
        assert!(is_allowed(&answer), "{answer:?}");
    }
    let usage = |options: &[&str]| admin(&gate, &[&["usage"], options].concat()).done();
    // Metrics are handed in one by one.
    let is_complete = |csv: &str| csv.contains("Z,3\n") && csv.contains("Z,15\n");
    eventually("the use shows up", async || is_complete(&usage(&["--csv"]))).await;
    let csv = usage(&["--csv"]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("issuer,license,assignee,user,project,metric,window_start,amount"));
    let rows: Vec<&str> = lines.collect();
    let row = |metric: &str| {
        format!("https://data.example,license-1,acme,\"ana, \"\"the first\"\"\",research,{metric},")
    };
    assert!(rows.len() == 2 && rows[0].starts_with(&row("requests")) && rows[0].ends_with("Z,3"), "{csv}");
    assert!(rows[1].starts_with(&row("rows")) && rows[1].ends_with("Z,15"), "{csv}");

    let table = usage(&["--license", "license-1", "--window", "month"]);
    assert!(table.contains("amount") && table.contains(user) && table.contains("15"), "{table}");
    let lines =
        usage(&["--json", "--metric", "rows", "--window", "day", "--from", "1d ago", "--until", "1h"]);
    // More than one at midnight.
    let days: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(days.iter().map(|day| day["amount"].as_f64().unwrap()).sum::<f64>(), 15.0);
    for day in &days {
        assert!(
            day["user"] == user && day["window_start"].as_str().unwrap().ends_with("T00:00:00Z"),
            "{day}"
        );
    }
    for nothing in
        [["--user", "ben"], ["--project", "other"], ["--from", "2h"], ["--issuer", "https://no.example"]]
    {
        assert_eq!(usage(&[&["--json"], &nothing[..]].concat()), "", "{nothing:?}");
    }
    let both = admin(&gate, &["usage", "--csv", "--json"]).failed();
    assert!(both.contains("--json"), "{both}");
}
