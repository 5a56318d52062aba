//! Policies from outside: sets that are swapped whole while the gate decides.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tollgate::proto::v1::{CheckRequest, CheckResponse};

use super::gate::{Gate, Site, ask, codes, eventually, is_allowed};
use super::volume::Volume;

const DIRECTORY: (&str, &str) = ("policies.directory", "policies");

/// A policy that forbids everything, named `id`.
fn forbid(id: &str) -> String {
    format!("@id(\"{id}\")\nforbid (principal, action, resource);\n")
}

fn reloads(gate: &Gate, result: &str) -> f64 {
    gate.metric("tollgate_reloads_total", &[("what", "policies"), ("result", result)])
}

async fn check(gate: &Gate) -> CheckResponse {
    gate.check(ask(&gate.site().issuer.license("license-1"))).await
}

async fn becomes(gate: &Gate, allowed: bool) {
    let holds = async || is_allowed(&check(gate).await) == allowed;
    eventually(&format!("allowed: {allowed}"), holds).await;
}

#[tokio::test]
async fn every_way_to_change_a_file_counts() {
    let site = Site::new();
    fs::create_dir(site.path("policies")).unwrap();
    let gate = site.start(&[DIRECTORY]);
    let first = check(&gate).await;
    assert!(is_allowed(&first));
    let file = gate.site().path("policies/closed.cedar");

    fs::write(&file, forbid("closed")).unwrap();
    becomes(&gate, false).await;
    let denied = check(&gate).await;
    assert_eq!(codes(&denied), ["POLICY_FORBIDS"]);
    assert!(denied.reasons[0].policy_id.contains("closed"), "{denied:?}");
    assert_ne!(denied.policy_revision, first.policy_revision);
    assert!(gate.part("policies").1.contains(&denied.policy_revision));
    let revision = [("revision", denied.policy_revision.as_str())];
    assert_eq!(gate.metric("tollgate_policy_info", &revision), 1.0);

    fs::remove_file(&file).unwrap();
    becomes(&gate, true).await;
    assert_eq!(check(&gate).await.policy_revision, first.policy_revision, "the same set has the same name");

    gate.site().write("policies/deep/down/closed.cedar", &forbid("closed"));
    becomes(&gate, false).await;
    fs::remove_dir_all(gate.site().path("policies/deep")).unwrap();
    becomes(&gate, true).await;
    assert_eq!(reloads(&gate, "failure"), 0.0);
}

#[tokio::test]
async fn a_bad_set_leaves_the_one_in_force_and_is_told() {
    let site = Site::new();
    site.write("policies/closed.cedar", &forbid("closed"));
    let gate = site.start(&[DIRECTORY]);
    assert_eq!(codes(&check(&gate).await), ["POLICY_FORBIDS"]);
    let unparsable = "permit (principal, action, resource)\nwhen {";
    let unknown_attribute = "permit (principal, action, resource)\nwhen { context.colour == \"red\" };";
    let unknown_code = "@code(\"NO_SUCH_CODE\")\nforbid (principal, action, resource);";
    // What would end the gate if Cedar read it.
    let bottomless = format!(
        "permit (principal, action, resource)\nwhen {{ {}1{} == 1 }};",
        "(".repeat(20_000),
        ")".repeat(20_000)
    );
    let endless =
        format!("permit (principal, action, resource)\nwhen {{ false{} }};", " || false".repeat(20_000));
    for bad in [unparsable, unknown_attribute, unknown_code, &bottomless, &endless] {
        let before = reloads(&gate, "failure");
        // The good half of a bad set does not count either.
        fs::write(gate.site().path("policies/bad.cedar"), bad).unwrap();
        fs::rename(gate.site().path("policies/closed.cedar"), gate.site().path("closed.cedar")).unwrap();
        eventually("the failure is counted", async || reloads(&gate, "failure") > before).await;
        let (state, detail) = gate.part("policies");
        assert_eq!(state, "degraded", "{bad}");
        assert!(detail.contains("policies/bad.cedar:"), "{detail}");
        assert_eq!(gate.get("/readyz").0, 200);
        assert_eq!(codes(&check(&gate).await), ["POLICY_FORBIDS"], "{bad}");

        fs::rename(gate.site().path("closed.cedar"), gate.site().path("policies/closed.cedar")).unwrap();
        fs::remove_file(gate.site().path("policies/bad.cedar")).unwrap();
        eventually("it is taken back", async || gate.part("policies").0 == "ready").await;
    }
    assert!(gate.stop().await.stderr.contains("policies/bad.cedar"));
}

#[tokio::test]
async fn a_policy_as_deep_as_is_accepted_is_decided_by() {
    let site = Site::new();
    // In an `unless` it becomes part of the conjunction that every request is asked by.
    let deep = vec!["context.combined_with_external"; 490].join(" || ");
    site.write("policies/deep.cedar", &format!("forbid (principal, action, resource) unless {{ {deep} }};"));
    let gate = site.start(&[DIRECTORY]);
    let denied = check(&gate).await;
    assert!(["POLICY_FORBIDS", "POLICY_ERROR"].contains(&codes(&denied)[0]), "{denied:?}");
    let combined =
        CheckRequest { combined_with_external: true, ..ask(&gate.site().issuer.license("license-1")) };
    let answer = gate.check(combined).await;
    assert!(is_allowed(&answer) || codes(&answer) == ["POLICY_ERROR"], "{answer:?}");
}

/// Two policies that belong together.
fn pair(version: u32) -> [(&'static str, String); 2] {
    [("a.cedar", forbid(&format!("a-{version}"))), ("b.cedar", forbid(&format!("b-{version}")))]
}

/// The version that both policies of an answer have.
fn version(answer: &CheckResponse) -> u32 {
    assert_eq!(codes(answer), ["POLICY_FORBIDS"; 2], "{answer:?}");
    let versions = answer.reasons.iter().map(|reason| reason.policy_id.rsplit('-').next().unwrap());
    let versions: Vec<u32> = versions.map(|version| version.parse().unwrap()).collect();
    assert_eq!(versions[0], versions[1], "half of one set and half of another: {answer:?}");
    versions[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_of_a_mounted_volume_never_show_half_a_set_or_an_error() {
    let site = Site::new();
    let mut volume = Volume::mount(&site.path("policies"), &pair(0));
    let gate = site.start(&[DIRECTORY]);
    let question = ask(&gate.site().issuer.license("license-1"));
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = [gate.client().await, gate.client().await]
        .into_iter()
        .map(|mut client| {
            let (question, stop) = (question.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut last, mut asked) = (0, 0_u32);
                while !stop.load(Ordering::Relaxed) {
                    // Never the same question, so that no answer is remembered.
                    let question = CheckRequest { project: format!("p{asked}"), ..question.clone() };
                    let version = version(&client.check(question).await.unwrap().into_inner());
                    assert!(version >= last, "an older set came back");
                    (last, asked) = (version, asked + 1);
                }
                asked
            })
        })
        .collect();
    for number in 1..6 {
        volume.swap(&pair(number));
        if number % 2 == 1 {
            let holds = async || version(&gate.check(question.clone()).await) == number;
            eventually("the swap is seen", holds).await;
        }
    }
    // One swap right after another.
    for number in 6..12 {
        volume.swap(&pair(number));
    }
    eventually("the last swap is seen", async || version(&gate.check(question.clone()).await) == 11).await;
    stop.store(true, Ordering::Relaxed);
    for asking in asking {
        assert!(asking.await.unwrap() > 50);
    }
    assert_eq!(reloads(&gate, "failure"), 0.0);
    assert_eq!(gate.part("policies").0, "ready");
}

#[tokio::test]
async fn the_catalog_is_read_again_too() {
    let catalog = |k: u32| {
        let uid = r#"{"type": "Tollgate::Dataset", "id": "sales/eu"}"#;
        let attributes = format!(r#"{{"anonymization": {{"k_anonymity": {k}, "attested_by": "board"}}}}"#);
        format!(r#"[{{"uid": {uid}, "attrs": {attributes}, "parents": []}}]"#)
    };
    let site = Site::new();
    site.write("catalog.json", &catalog(10));
    let gate = site.start(&[("policies.catalog", "catalog.json")]);
    let mut claims = gate.site().issuer.claims("license-1");
    claims["terms"]["anonymization"] = serde_json::json!({"k_anonymity": 10, "attested_by": ["board"]});
    let question = ask(&gate.site().issuer.sign(&claims));
    let answer = async || gate.check(question.clone()).await;
    assert!(is_allowed(&answer().await), "{:?}", answer().await);

    gate.site().write("catalog.json", &catalog(9));
    let denied = async || codes(&answer().await) == ["ANONYMIZATION_INSUFFICIENT"];
    eventually("the release is not good enough any more", denied).await;

    let within_itself = r#"[{"uid": {"type": "Tollgate::Dataset", "id": "sales"}, "attrs": {},
        "parents": [{"type": "Tollgate::Dataset", "id": "sales/eu"}]}]"#;
    for (bad, words) in [("[{}]", "catalog.json"), (within_itself, "it is in itself")] {
        let before = reloads(&gate, "failure");
        gate.site().write("catalog.json", bad);
        eventually("the bad catalog is counted", async || reloads(&gate, "failure") > before).await;
        assert!(gate.part("policies").1.contains(words), "{:?}", gate.part("policies"));
        assert!(denied().await);
    }
    gate.site().write("catalog.json", &catalog(11));
    eventually("it is good enough again", async || is_allowed(&answer().await)).await;
}
