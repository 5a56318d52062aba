//! Administration from outside: what the command line has a running gate do to licenses, what checks
//! then say, and what is left in the decision log.

mod pages;
mod usage;
mod watching;

use std::path::PathBuf;

use serde_json::{Value, json};
use tollgate::keyring::jwks::KeyState;

use super::gate::{Gate, Site, ask, codes, program};

/// Administration over a Unix socket, and how to reach it.
const OVER_UNIX: (&str, &str) = ("listeners.administration.unix", "admin.sock");
const ADMIN: [&str; 2] = ["--admin", "unix:admin.sock"];

const READER: &str = "reader-0123456789-0123456789-0123456789";
const OPERATOR: &str = "operator-0123456789-0123456789-0123456789";

/// How a verb ended.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// Standard output of a verb that did what it was told.
    fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a verb that did not.
    fn failed(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        self.stderr
    }
}

fn folder(gate: &Gate) -> PathBuf {
    gate.site().path("")
}

/// Runs a verb in the gate's folder, in this environment.
fn run(gate: &Gate, environment: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = program(&folder(gate), arguments);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a verb over the Unix socket.
fn admin(gate: &Gate, arguments: &[&str]) -> Said {
    run(gate, &[], &[arguments, &ADMIN[..]].concat())
}

/// What the verb says as JSON.
fn told(gate: &Gate, arguments: &[&str]) -> Value {
    let said = admin(gate, &[arguments, &["--json"]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.json()
}

/// Registers a license of this id for this organization.
fn register(gate: &Gate, id: &str, assignee: &str) {
    let mut claims = gate.site().issuer.claims(id);
    claims["sub"] = assignee.into();
    let file = format!("{id}.license");
    gate.site().write(&file, &gate.site().issuer.sign(&claims));
    admin(gate, &["register", &file]).done();
}

/// Checks by the license's id: the exit code, and the codes of the reasons.
fn check(gate: &Gate, id: &str, organization: &str) -> (Option<i32>, Vec<String>) {
    let address = format!("http://{}", gate.decisions);
    let who = ["--license-id", id, "--subject", "ana", "--organization", organization];
    let what = ["--action", "read", "--dataset", "sales/eu/orders", "--purpose", "ScientificResearch"];
    let said = run(gate, &[], &[&["check", "--json", "--gate", &address], &who[..], &what[..]].concat());
    let answer = said.json();
    let reasons = answer["reasons"].as_array().unwrap();
    (said.code, reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect())
}

fn allowed() -> (Option<i32>, Vec<String>) {
    (Some(0), Vec::new())
}

fn denied(code: &str) -> (Option<i32>, Vec<String>) {
    (Some(1), vec![code.to_owned()])
}

/// The acts in the decision log: what was done, to what, why, and what became of it.
fn acts(records: &[Value]) -> Vec<(&str, &Value, &str, &str)> {
    let acts = records.iter().filter(|record| record["act_id"].is_string());
    acts.map(|act| {
        let text = |name: &str| act[name].as_str().unwrap();
        (text("act"), &act["target"], text("reason"), text("outcome"))
    })
    .collect()
}

#[tokio::test]
async fn a_license_is_registered_suspended_reinstated_and_revoked() {
    let gate = Gate::start(&[OVER_UNIX]);
    let token = gate.site().issuer.license("license-1");
    gate.site().write("acme.license", &token);
    let first = admin(&gate, &["register", "acme.license"]).done();
    for words in ["license-1", "VALID", "now, by unix:"] {
        assert!(first.contains(words), "{words}: {first}");
    }
    let again = told(&gate, &["register", "acme.license"]);
    assert_eq!((&again["created"], &again["license"]["assignee"]), (&false.into(), &"acme".into()));
    let piped = std::fs::File::open(gate.site().path("acme.license")).unwrap();
    let mut command = program(&folder(&gate), &["register", "-", "--admin", "unix:admin.sock"]);
    assert!(command.stdin(piped).output().unwrap().status.success());
    assert_eq!(check(&gate, "license-1", "acme"), allowed());

    let about =
        |verb: &str, reason: &str| admin(&gate, &[verb, "--license", "license-1", "--reason", reason]);
    let suspended = about("suspend", "overdue").done();
    for words in ["SUSPENDED", "license `license-1` of `https://data.example`", "overdue", "unix:"] {
        assert!(suspended.contains(words), "{words}: {suspended}");
    }
    assert_eq!(check(&gate, "license-1", "acme"), denied("SUSPENDED"));
    assert!(admin(&gate, &["licenses", "--status", "suspended"]).done().contains("license-1"));
    assert!(!admin(&gate, &["licenses", "--status", "valid"]).done().contains("license-1"));
    // What is lifted in one place may stand in another.
    let of_all = |verb: &str| admin(&gate, &[verb, "--assignee", "acme", "--reason", "all of them"]);
    of_all("suspend").done();
    let reinstated = about("reinstate", "paid");
    assert!(reinstated.stderr.contains("still SUSPENDED: assignee `acme`"), "{}", reinstated.stderr);
    assert_eq!(check(&gate, "license-1", "acme"), denied("SUSPENDED"));
    of_all("reinstate").done();
    assert_eq!(check(&gate, "license-1", "acme"), allowed());
    about("revoke", "ended").done();
    assert_eq!(check(&gate, "license-1", "acme"), denied("REVOKED"));
    // The first reason stays, and nothing leads back.
    let again = told(&gate, &["revoke", "--license", "license-1", "--reason", "once more"]);
    assert_eq!((&again["status"], &again["reason"]), (&"REVOKED".into(), &"ended".into()));
    assert!(about("reinstate", "a mistake").failed().contains("nothing lifts a revocation"));

    let ended = gate.stop().await;
    let records = ended.site.records();
    let target = json!({"kind": "license", "issuer": "https://data.example", "id": "license-1"});
    let act = |act, reason, outcome| (act, &target, reason, outcome);
    let registered = act("RegisterLicense", "", "done");
    let acts = acts(&records).into_iter().filter(|act| act.1["kind"] == "license");
    assert_eq!(
        acts.collect::<Vec<_>>(),
        [
            registered,
            registered,
            registered,
            act("SuspendLicense", "overdue", "done"),
            act("ReinstateLicense", "paid", "done"),
            act("RevokeLicense", "ended", "done"),
            act("RevokeLicense", "once more", "done"),
            act("ReinstateLicense", "a mistake", "refused"),
        ]
    );
    let by_socket = |act: &Value| act["operator"].as_str().unwrap().starts_with("unix:");
    assert!(records.iter().filter(|record| record["act_id"].is_string()).all(by_socket));
    let text = std::fs::read_to_string(ended.site.path("decisions.jsonl")).unwrap();
    assert!(!text.contains(&token), "the license's token is in the decision log");
}

#[tokio::test]
async fn licenses_are_listed_and_shown() {
    let gate = Gate::start(&[OVER_UNIX]);
    for (id, assignee) in [("license-1", "acme"), ("license-2", "globex"), ("license-3", "acme")] {
        register(&gate, id, assignee);
    }
    let ids = |filters: &[&str]| -> Vec<String> {
        let list = told(&gate, &[&["licenses"], filters].concat());
        list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&[]), ["license-1", "license-2", "license-3"]);
    assert_eq!(ids(&["--assignee", "acme"]), ["license-1", "license-3"]);
    assert_eq!(ids(&["--limit", "2"]), ["license-1", "license-2"]);
    assert_eq!(ids(&["--expiring-before", "30d"]).len(), 3);
    for none in [["--expiring-before", "2020-01-01T00:00:00Z"], ["--issuer", "https://other.example"]] {
        assert!(ids(&none).is_empty(), "{none:?}");
    }
    let table = admin(&gate, &["licenses"]).done();
    for words in ["expires", "https://data.example", "globex", "VALID"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let wrong = admin(&gate, &["licenses", "--expiring-before", "soon"]).failed();
    assert!(wrong.contains("--expiring-before") && wrong.contains("30d"), "{wrong}");

    admin(&gate, &["suspend", "--assignee", "globex", "--reason", "an incident"]).done();
    let one = admin(&gate, &["licenses", "license-2"]).done();
    for words in ["globex", "SUSPENDED: assignee `globex` of `https://data.example`", "an incident"] {
        assert!(one.contains(words), "{words}: {one}");
    }
    let one = told(&gate, &["licenses", "license-2"]);
    assert_eq!(
        (&one["status"], &one["standings"][0]["target"]["kind"]),
        (&"SUSPENDED".into(), &"assignee".into())
    );
    let unknown = admin(&gate, &["licenses", "license-9"]).failed();
    assert!(unknown.contains("no license `license-9` is registered"), "{unknown}");
}

#[tokio::test]
async fn many_licenses_are_ended_at_once() {
    let gate = Gate::start(&[OVER_UNIX]);
    register(&gate, "license-1", "acme");
    register(&gate, "license-2", "globex");
    let kid = gate.site().issuer.jwk(KeyState::Active).kid;
    let hit = |verb: &str, target: &[&str]| {
        let said = told(&gate, &[&[verb], target, &["--reason", "an incident"]].concat());
        said["licenses"].clone()
    };
    let both = json!(["license-1", "license-2"]);
    assert_eq!(hit("suspend", &["--assignee", "globex"]), json!(["license-2"]));
    assert_eq!(check(&gate, "license-2", "globex"), denied("SUSPENDED"));
    assert_eq!(check(&gate, "license-1", "acme"), allowed());
    assert_eq!(hit("reinstate", &["--assignee", "globex"]), json!(["license-2"]));
    assert_eq!(check(&gate, "license-2", "globex"), allowed());

    assert_eq!(hit("suspend", &["--key-id", &kid, "--issuer", "https://data.example"]), both);
    assert_eq!(check(&gate, "license-1", "acme"), denied("SUSPENDED"));
    hit("reinstate", &["--key-id", &kid]);
    assert_eq!(check(&gate, "license-1", "acme"), allowed());

    let all = admin(&gate, &["revoke", "--all", "--reason", "the data was withdrawn"]).done();
    for words in ["all licenses of `https://data.example`", "2 registered", "license-1", "license-2"] {
        assert!(all.contains(words), "{words}: {all}");
    }
    for (id, organization) in [("license-1", "acme"), ("license-2", "globex")] {
        assert_eq!(check(&gate, id, organization), denied("REVOKED"));
    }
    // One target, and a reason.
    for wrong in [
        &["--reason", "why"][..],
        &["--all", "--license", "license-1", "--reason", "why"],
        &["--license", "license-1"],
    ] {
        admin(&gate, &[&["revoke"], wrong].concat()).failed();
    }
}

#[tokio::test]
async fn what_is_not_registered_can_be_revoked_and_other_issuers_are_refused() {
    let gate = Gate::start(&[OVER_UNIX]);
    admin(&gate, &["revoke", "--license", "leaked", "--reason", "it has leaked"]).done();
    let answer = gate.check(ask(&gate.site().issuer.license("leaked"))).await;
    assert_eq!(codes(&answer), ["REVOKED"]);
    let other = ["--license", "leaked", "--issuer", "https://other.example", "--reason", "why"];
    let refused = admin(&gate, &[&["suspend"], &other[..]].concat()).failed();
    for words in ["InvalidArgument", "https://other.example", "one of the trusted issuers"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let stranger = super::gate::Issuer::new("https://data.example", 9).license("license-1");
    gate.site().write("forged.license", &stranger);
    let forged = admin(&gate, &["register", "forged.license"]).failed();
    assert!(forged.contains("KEY_UNKNOWN") && !forged.contains(stranger.as_str()), "{forged}");
}

#[tokio::test]
async fn a_token_says_who_acts_and_is_never_shown() {
    let site = Site::new();
    let token = |name, scope, token| format!("- {{name: {name}, scope: {scope}, token: {token}}}\n");
    site.write("tokens.yaml", &(token("dashboard", "read", READER) + &token("ci", "operate", OPERATOR)));
    site.write("operator.token", &format!("{OPERATOR}\n"));
    let tokens = ("listeners.administration.tokens", "tokens.yaml");
    let gate = site.start(&[tokens, ("listeners.administration.tcp", "127.0.0.1:0")]);
    let line: Value = serde_json::from_str(&gate.stderr.find("the gate is listening").unwrap()).unwrap();
    let address = format!("http://{}", line["administration"].as_str().unwrap());
    let revoke = ["revoke", "--license", "license-1", "--reason", "ended"];
    let mut shown = String::new();
    let mut expect = |environment: &[(&str, &str)], arguments: &[&str], code: i32, words: &[&str]| {
        let environment = [&[("TOLLGATE_ADMIN", address.as_str())], environment].concat();
        let said = run(&gate, &environment, arguments);
        let text = said.stdout + &said.stderr;
        assert_eq!(said.code, Some(code), "{text}");
        assert!(words.iter().all(|words| text.contains(words)), "{words:?}: {text}");
        shown.push_str(&text);
    };
    expect(&[], &["licenses"], 2, &["Unauthenticated", "--token-file", "TOLLGATE_TOKEN"]);
    let wrong = OPERATOR.to_uppercase();
    expect(
        &[("TOLLGATE_TOKEN", wrong.as_str())],
        &["licenses"],
        2,
        &["Unauthenticated", "is not one of them"],
    );
    for not_a_token in ["", "two words"] {
        expect(
            &[("TOLLGATE_TOKEN", not_a_token)],
            &["licenses"],
            2,
            &["TOLLGATE_TOKEN: a token is one word"],
        );
    }
    let read = [("TOLLGATE_TOKEN", READER)];
    expect(&read, &["licenses"], 0, &["assignee"]);
    expect(&read, &revoke, 2, &["PermissionDenied", "`dashboard`, of scope `read`", "RevokeLicense"]);
    // A file that is named goes before the variable.
    expect(&read, &[&revoke[..], &["--token-file", "operator.token"]].concat(), 0, &["REVOKED", "ci"]);
    expect(&[("TOLLGATE_TOKEN_FILE", "operator.token")], &["licenses"], 0, &["assignee"]);
    expect(&read, &["licenses", "--token-file", "none.token"], 2, &["none.token"]);
    expect(&read, &["licenses", "--help"], 0, &["TOLLGATE_TOKEN"]);

    let ended = gate.stop().await;
    let records = ended.site.records();
    let operators: Vec<_> = records.iter().map(|act| (&act["operator"], &act["outcome"])).collect();
    let expected =
        [("dashboard", "forbidden"), ("ci", "done")].map(|(by, outcome)| (json!(by), json!(outcome)));
    assert_eq!(operators, expected.iter().map(|(by, outcome)| (by, outcome)).collect::<Vec<_>>());
    let log = std::fs::read_to_string(ended.site.path("decisions.jsonl")).unwrap();
    for text in [&shown, &log, &ended.stdout, &ended.stderr] {
        assert!(!text.contains(READER) && !text.contains(OPERATOR) && !text.contains(&wrong), "{text}");
    }
}

#[tokio::test]
async fn a_gate_that_does_not_administer_is_told_from_one_that_refuses() {
    let gate = Gate::start(&[]);
    for nobody in ["http://127.0.0.1:1", "unix:nowhere.sock"] {
        let said = run(&gate, &[], &["licenses", "--admin", nobody]).failed();
        assert!(said.contains(&format!("no gate administers at `{nobody}`")), "{said}");
        assert!(said.contains("listeners.administration") && !said.contains("could not decide"), "{said}");
    }
    let wrong = run(&gate, &[], &["licenses", "--admin", "not an address"]).failed();
    assert!(wrong.contains("`--admin not an address`"), "{wrong}");
    let clear = run(&gate, &[], &["licenses", "--ca", "ca.pem"]).failed();
    assert!(clear.contains("`--admin http://127.0.0.1:9192` is not TLS"), "{clear}");
    let decisions = format!("http://{}", gate.decisions);
    let said = run(&gate, &[], &["licenses", "--admin", &decisions]).failed();
    assert!(said.contains("Unimplemented") && said.contains("administration listener"), "{said}");
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let gate = Gate::start(&[OVER_UNIX]);
    register(&gate, "license-1", "acme");
    register(&gate, "license-2", "acme");
    admin(&gate, &["revoke", "--license", "license-1", "--reason", "ended"]).done();
    let gate = gate.stop().await.site.start(&[OVER_UNIX]);
    assert_eq!(check(&gate, "license-1", "acme"), denied("REVOKED"));
    assert_eq!(check(&gate, "license-2", "acme"), allowed());
    let one = told(&gate, &["licenses", "license-1"]);
    assert_eq!((&one["status"], &one["standings"][0]["reason"]), (&"REVOKED".into(), &"ended".into()));
}

#[tokio::test]
async fn terms_are_accepted_before_anything_is_allowed() {
    let gate = Gate::start(&[OVER_UNIX]);
    let hash = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ";
    let mut claims = gate.site().issuer.claims("license-1");
    claims["terms"]["acceptance"] = json!({ "terms_hash": hash });
    gate.site().write("acme.license", &gate.site().issuer.sign(&claims));
    admin(&gate, &["register", "acme.license"]).done();
    assert_eq!(check(&gate, "license-1", "acme"), denied("TERMS_NOT_ACCEPTED"));
    let other = ["accept", "--license", "license-1", "--terms-hash", "abc", "--by", "ana@acme.example"];
    assert!(admin(&gate, &other).failed().contains(&format!("is not what the license asks for, `{hash}`")));
    let accept = ["accept", "--license", "license-1", "--terms-hash", hash, "--by", "ana@acme.example"];
    assert!(admin(&gate, &accept).done().contains("now, by ana@acme.example"));
    assert_eq!(check(&gate, "license-1", "acme"), allowed());
    assert_eq!(told(&gate, &accept)["created"], false);
}

#[test]
fn every_verb_of_administration_has_help_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["register", "licenses", "revoke", "suspend", "reinstate", "accept", "usage"] {
        let output = program(folder.path(), &[verb, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{verb}");
        let example = format!("Example:\n  tollgate {verb} ");
        for words in [example.as_str(), "--json", "--admin", "TOLLGATE_TOKEN_FILE"] {
            assert!(help.contains(words), "{verb}: {words}: {help}");
        }
        assert!(!help.contains("--gate"), "{help}");
    }
}
