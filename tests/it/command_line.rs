//! The command line from outside: what each verb writes, and how it exits.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::gate::{Gate, Issuer, PATIENCE, Site, now, program};

/// How a verb ended.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

fn tollgate(folder: &Path, arguments: &[&str]) -> Said {
    let output = program(folder, arguments).output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

const KEYGEN: [&str; 7] =
    ["keygen", "--issuer", "https://data.example", "--private", "issuer.jwk", "--public", "keys/issuer.json"];

const TERMS: &str = "assignee: acme\nid: license-1\nvalid_for: P1D\nterms:\n  datasets: [sales/eu]\n  \
                     actions: [read]\n  purposes: [ScientificResearch]\n";

#[test]
fn keygen_keeps_the_private_key_to_its_owner_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = tollgate(folder.path(), &KEYGEN);
    assert!(nowhere.code == Some(2) && nowhere.stderr.contains("keys/issuer.json"), "{}", nowhere.stderr);
    assert!(!folder.path().join("issuer.jwk").exists(), "half of a pair was written");
    fs::create_dir(folder.path().join("keys")).unwrap();
    let made = tollgate(folder.path(), &KEYGEN);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    let mode = fs::metadata(folder.path().join("issuer.jwk")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let private: Value = serde_json::from_str(&read(&folder, "issuer.jwk")).unwrap();
    let public = read(&folder, "keys/issuer.json");
    let secret = private["d"].as_str().unwrap();
    assert!(!public.contains(secret) && !made.stdout.contains(secret));
    let set: Value = serde_json::from_str(&public).unwrap();
    assert_eq!((&set["issuer"], &set["keys"][0]["x"]), (&"https://data.example".into(), &private["x"]));
    assert!(made.stdout.contains(set["keys"][0]["kid"].as_str().unwrap()), "{}", made.stdout);

    for (kept, moved) in [("issuer.jwk", "keys/issuer.json"), ("keys/issuer.json", "issuer.jwk")] {
        let before = read(&folder, kept);
        fs::rename(folder.path().join(moved), folder.path().join("moved")).unwrap();
        let again = tollgate(folder.path(), &KEYGEN);
        assert_eq!(again.code, Some(2), "{}", again.stdout);
        assert!(
            again.stderr.contains(kept) && again.stderr.contains("never overwritten"),
            "{}",
            again.stderr
        );
        assert_eq!(read(&folder, kept), before);
        assert!(!folder.path().join(moved).exists(), "half of a pair was written");
        fs::rename(folder.path().join("moved"), folder.path().join(moved)).unwrap();
    }
    let json = ["keygen", "--issuer", "i", "--private", "a.jwk", "--public", "a.json", "--json"];
    let made = tollgate(folder.path(), &json);
    assert_eq!(made.json()["private"], "a.jwk");
    let nobody = ["keygen", "--issuer", "", "--private", "b.jwk", "--public", "b.json"];
    assert!(tollgate(folder.path(), &nobody).stderr.contains("--issuer"));
}

#[test]
fn a_license_is_issued_and_inspected() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    let run = |arguments: &[&str]| tollgate(folder.path(), arguments);
    assert_eq!(run(&KEYGEN).code, Some(0));
    fs::write(folder.path().join("terms.yaml"), TERMS).unwrap();
    let issue = ["issue", "--key", "issuer.jwk", "--terms", "terms.yaml"];
    let token = run(&issue);
    assert_eq!((token.code, token.stdout.trim().split('.').count()), (Some(0), 3), "{}", token.stderr);
    let to_file = [&issue[..], &["--out", "acme.license"]].concat();
    assert_eq!(run(&to_file).code, Some(0));
    let written = read(&folder, "acme.license");
    let again = run(&to_file);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("never overwritten"), "{}", again.stderr);
    assert_eq!(read(&folder, "acme.license"), written);
    assert_eq!(run(&[&issue[..], &["--json"]].concat()).json()["claims"]["jti"], "license-1");

    let good = run(&["inspect", "acme.license", "--keys", "keys"]);
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);
    for words in ["license-1", "https://data.example", "verified with key", "ScientificResearch"] {
        assert!(good.stdout.contains(words), "{}", good.stdout);
    }
    let unproven = run(&["inspect", "acme.license"]);
    assert_eq!(unproven.code, Some(1));
    assert!(unproven.stdout.contains("--keys"), "{}", unproven.stdout);
    let json = run(&["inspect", "acme.license", "--keys", "keys", "--json"]).json();
    assert_eq!((&json["verified"], &json["valid_now"]), (&true.into(), &true.into()));
    assert_eq!(json["claims"]["terms"]["datasets"][0], "sales/eu");

    let expired = TERMS.replace("valid_for: P1D", "not_before: 2020-01-01T00:00:00Z\nvalid_for: P1D");
    fs::write(folder.path().join("terms.yaml"), expired).unwrap();
    fs::write(folder.path().join("old.license"), run(&issue).stdout).unwrap();
    let old = run(&["inspect", "old.license", "--keys", "keys"]);
    assert!(old.code == Some(1) && old.stdout.contains("expired at 2020-01-02"), "{}", old.stdout);
    let stranger = Issuer::new("https://data.example", 9).license("license-2");
    fs::write(folder.path().join("forged.license"), stranger).unwrap();
    assert_eq!(run(&["inspect", "forged.license", "--keys", "keys"]).code, Some(1));
    fs::write(folder.path().join("no.license"), "hello").unwrap();
    assert_eq!(run(&["inspect", "no.license", "--keys", "keys"]).code, Some(2));
    assert_eq!(run(&["inspect", "nowhere.license"]).code, Some(2));
}

#[test]
fn terms_that_are_wrong_are_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    tollgate(folder.path(), &KEYGEN);
    let wrong = TERMS.replace("actions: [read]", "actions: [raed]\n  dataset: [a]");
    fs::write(folder.path().join("terms.yaml"), wrong).unwrap();
    let said =
        tollgate(folder.path(), &["issue", "--key", "issuer.jwk", "--terms", "terms.yaml", "--out", "l"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    for place in ["terms.yaml:6: terms.actions[0]", "terms.yaml:7: terms.dataset"] {
        assert!(said.stderr.contains(place), "{}", said.stderr);
    }
    assert!(said.stderr.contains("did you mean `datasets`"), "{}", said.stderr);
    assert!(!folder.path().join("l").exists());
    // What is wrong with the whole is told at its place too.
    let past = TERMS.replace("valid_for: P1D", "expires: 2020-01-01T00:00:00Z");
    let bound = TERMS.replace("terms:", "holder: {spiffe_id: ''}\nterms:");
    for (wrong, words) in [
        (TERMS.replace("valid_for: P1D\n", ""), "terms.yaml:1: one of `expires` and `valid_for`"),
        (past, "terms.yaml:1: the validity ends before it begins"),
        (bound, "terms.yaml:4: holder: it is empty"),
    ] {
        let issue = ["issue", "--key", "issuer.jwk", "--terms", "terms.yaml"];
        fs::write(folder.path().join("terms.yaml"), wrong).unwrap();
        let said = tollgate(folder.path(), &issue);
        assert!(said.code == Some(2) && said.stderr.contains(words), "{words}: {}", said.stderr);
    }
    // A public key signs nothing.
    fs::write(folder.path().join("terms.yaml"), TERMS).unwrap();
    let said = tollgate(folder.path(), &["issue", "--key", "keys/issuer.json", "--terms", "terms.yaml"]);
    assert_eq!(said.code, Some(2));
}

#[test]
fn the_next_key_joins_the_set_of_its_issuer() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    assert_eq!(tollgate(folder.path(), &KEYGEN).code, Some(0));
    let before = read(&folder, "keys/issuer.json");
    let next = |issuer: &str| {
        let next = ["keygen", "--issuer", issuer, "--private", "next.jwk", "--add-to", "keys/issuer.json"];
        tollgate(folder.path(), &next)
    };
    let other = next("https://other.example");
    assert!(other.code == Some(2) && other.stderr.contains("its issuer is"), "{}", other.stderr);
    assert!(read(&folder, "keys/issuer.json") == before && !folder.path().join("next.jwk").exists());
    let added = next("https://data.example");
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let set: Value = serde_json::from_str(&read(&folder, "keys/issuer.json")).unwrap();
    assert_eq!(set["keys"][0], serde_json::from_str::<Value>(&before).unwrap()["keys"][0]);
    assert_eq!(set["keys"][1]["state"], "next");
    // Gates verify with it before anything is signed with it.
    fs::write(folder.path().join("terms.yaml"), TERMS).unwrap();
    let issue = ["issue", "--key", "next.jwk", "--terms", "terms.yaml", "--out", "acme.license"];
    assert_eq!(tollgate(folder.path(), &issue).code, Some(0));
    assert_eq!(tollgate(folder.path(), &["inspect", "acme.license", "--keys", "keys"]).code, Some(0));
}

#[test]
fn what_gates_may_not_honour_is_told_before_it_is_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    assert_eq!(tollgate(folder.path(), &KEYGEN).code, Some(0));
    let terms = TERMS.replace("[ScientificResearch]", "[Reserch]")
        + "  regions: [Europe, FR]\n  retention: {duration: P90D, then: delete}\n";
    fs::write(folder.path().join("terms.yaml"), terms).unwrap();
    let issue = ["issue", "--key", "issuer.jwk", "--terms", "terms.yaml", "--out", "acme.license"];
    let issued = tollgate(folder.path(), &issue);
    let inspected = tollgate(folder.path(), &["inspect", "acme.license", "--keys", "keys"]);
    for (said, words) in [("issue", &issued.stderr), ("inspect", &inspected.stdout)] {
        for place in ["terms.purposes: `Reserch`", "terms.regions: `Europe`", "terms.retention: "] {
            assert!(words.contains(place), "{said}: {place}: {words}");
        }
        assert!(!words.contains("`FR`"), "{words}");
    }
}

#[test]
fn what_is_shown_does_not_steer_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    assert_eq!(tollgate(folder.path(), &KEYGEN).code, Some(0));
    let keyed = format!("{TERMS}\"\\e[2Jgone\": 1\n");
    fs::write(folder.path().join("terms.yaml"), keyed).unwrap();
    let issue = ["issue", "--key", "issuer.jwk", "--terms", "terms.yaml"];
    let refused = tollgate(folder.path(), &issue);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("\\u{1b}[2Jgone: unknown key"),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains('\u{1b}'), "{:?}", refused.stderr);

    let named = TERMS.replace("assignee: acme", "assignee: \"\\x9bacme\\nsignature\\u202e\"");
    fs::write(folder.path().join("terms.yaml"), named).unwrap();
    let token = tollgate(folder.path(), &issue);
    fs::write(folder.path().join("license.jwt"), &token.stdout).unwrap();
    let shown = tollgate(folder.path(), &["inspect", "license.jwt", "--keys", "keys"]);
    assert!(
        shown.stdout.contains("granted to    \\u{9b}acme\\u{a}signature\\u{202e}\n"),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    assert!(!shown.stdout.contains(['\u{9b}', '\u{202e}']), "{:?}", shown.stdout);
}

#[tokio::test]
async fn check_exits_as_the_gate_decides() {
    let gate = Gate::start(&[("listeners.decisions.unix", "gate.sock")]);
    gate.site().write("acme.license", &gate.site().issuer.license("license-1"));
    let folder = gate.site().path("");
    let address = format!("http://{}", gate.decisions);
    let ask = |gate: &str, purpose: &str, more: &[&str]| {
        let about = ["--license", "acme.license", "--subject", "ana", "--organization", "acme"];
        let what = ["--action", "read", "--dataset", "sales/eu/orders", "--purpose", purpose];
        tollgate(&folder, &[&["check", "--gate", gate], &about[..], &what, more].concat())
    };
    let allowed = ask(&address, "ScientificResearch", &[]);
    assert!(allowed.code == Some(0) && allowed.stdout.starts_with("allow"), "{}", allowed.stderr);
    let denied = ask(&address, "Marketing", &[]);
    assert_eq!(denied.code, Some(1), "{}", denied.stderr);
    assert!(denied.stdout.starts_with("deny") && denied.stdout.contains("PURPOSE_NOT_LICENSED"));
    let json = ask(&address, "Marketing", &["--json"]).json();
    assert_eq!(
        (&json["decision"], &json["reasons"][0]["code"]),
        (&"deny".into(), &"PURPOSE_NOT_LICENSED".into())
    );
    let explained = ask("unix:gate.sock", "ScientificResearch", &["--explain"]);
    assert_eq!(explained.code, Some(0), "{}", explained.stderr);
    assert!(explained.stdout.contains("granted by"), "{}", explained.stdout);

    let begun = std::time::Instant::now();
    for nobody in ["http://127.0.0.1:1", "unix:nowhere.sock", "not an address"] {
        let undecided = ask(nobody, "ScientificResearch", &[]);
        assert_eq!(undecided.code, Some(2), "{nobody}: {}", undecided.stdout);
        assert!(undecided.stderr.contains(nobody), "{}", undecided.stderr);
    }
    assert!(begun.elapsed() < PATIENCE);
    let no_license = tollgate(&folder, &["check", "--gate", &address, "--license", "nowhere"]);
    assert_eq!(no_license.code, Some(2));
    // A request that is not one is no denial.
    gate.site().write("request.yaml", "action: read\nsubject: {name: ana}\n");
    let wrong = tollgate(&folder, &["check", "--gate", &address, "--request", "request.yaml"]);
    assert!(
        wrong.code == Some(2) && wrong.stderr.contains("request.yaml:2: subject.name"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn policies_are_validated_and_tested_without_a_gate() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| tollgate(folder.path(), arguments);
    assert_eq!(run(&["policy", "validate"]).code, Some(0));
    for name in ["policies", "cases"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let policy = folder.path().join("policies/own.cedar");
    fs::write(&policy, "@id(\"own\")\nforbid (principal, action, resource)\nwhen { context.colour == 1 };\n")
        .unwrap();
    let bad = run(&["policy", "validate", "policies"]);
    assert_eq!(bad.code, Some(1));
    assert!(bad.stdout.contains("policies/own.cedar:") && bad.stdout.contains("colour"), "{}", bad.stdout);
    let json = run(&["policy", "validate", "policies", "--json"]).json();
    assert_eq!(json["valid"], false);
    assert!(json["problems"][0].as_str().unwrap().contains("policies/own.cedar:"));

    fs::write(
        &policy,
        "@id(\"own\")\nforbid (principal, action == Tollgate::Action::\"delete\", resource);\n",
    )
    .unwrap();
    let good = run(&["policy", "validate", "policies"]);
    assert!(good.code == Some(0) && good.stdout.starts_with("valid: "), "{}", good.stdout);

    let case = |expect: &str| {
        let text = format!(
            "request:\n  subject: {{id: ana, organization: acme}}\n  action: read\n  \
             resource: {{id: sales/eu}}\n  purpose: Marketing\nexpect: {expect}\n"
        );
        fs::write(folder.path().join("cases/purpose.yaml"), text).unwrap();
        run(&["policy", "test", "cases", "--policies", "policies"])
    };
    let passed = case("{decision: deny, codes: [PURPOSE_NOT_LICENSED]}");
    assert_eq!(passed.code, Some(0), "{}{}", passed.stdout, passed.stderr);
    assert!(passed.stdout.contains("1 passed, 0 failed") && passed.stdout.contains("coverage: "));
    assert!(passed.stdout.contains("never satisfied: own"), "{}", passed.stdout);
    let failed = case("{decision: allow}");
    assert_eq!(failed.code, Some(1));
    assert!(failed.stdout.contains("FAILED  cases/purpose.yaml"), "{}", failed.stdout);
    assert!(failed.stdout.contains("PURPOSE_NOT_LICENSED"), "{}", failed.stdout);
    let wrong = case("{decision: deny, codes: [PURPOSE]}");
    assert!(wrong.code == Some(2) && wrong.stderr.contains("cases/purpose.yaml:6"), "{}", wrong.stderr);
}

#[test]
fn everything_wrong_with_a_configuration_is_said_at_once() {
    let site = Site::new();
    let text = "gate: {nam: berlin}\nlisteners:\n  decisions:\n    tcp: 10.0.0.1:1\naudit:\n  quue: 7\n  mode: fast\n";
    site.write("tollgate.yaml", text);
    let refused =
        site.serve(&[("shutdown.grace", "late")]).env("TOLLGATE__GATE__COLOUR", "red").output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(refused.stdout.is_empty());
    let words = String::from_utf8(refused.stderr).unwrap();
    for expected in [
        "tollgate.yaml:1: gate.nam: unknown key; did you mean `name`?",
        "tollgate.yaml:6: audit.quue: unknown key; did you mean `queue`?",
        "tollgate.yaml:7: audit.mode: `fast` is not one of `queued`, `durable`",
        "TOLLGATE__GATE__COLOUR: gate.colour: unknown key",
        "command line: shutdown.grace: `late` is not a duration",
    ] {
        assert!(words.contains(expected), "{expected}\nis not in\n{words}");
    }
    // Keys and policies are wrong together too.
    let site = Site::new();
    site.write("keys/bad.json", "{");
    site.write("policies/bad.cedar", "permit");
    let refused = site.serve(&[("policies.directory", "policies")]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("keys/bad.json") && words.contains("policies/bad.cedar:1"), "{words}");
    let site = Site::new();
    fs::remove_dir_all(site.path("keys")).unwrap();
    let missing = [("policies.directory", "nowhere"), ("audit.file.path", "none/decisions.jsonl")];
    let words = String::from_utf8(site.serve(&missing).output().unwrap().stderr).unwrap();
    assert!(words.starts_with("error: "), "{words}");
    for part in [
        "`licenses.keys` is a folder",
        "nowhere: the folder of policies cannot be read",
        "none/decisions.jsonl",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let nowhere = program(&site.path(""), &["serve", "--config", "nowhere.yaml"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(64));
    // What the configuration names and is not there, or is not usable.
    let certificates = "{certificate: nowhere.pem, key: nowhere.pem}";
    for wrong in [("audit.file.path", "nowhere/decisions.jsonl"), ("listeners.decisions.tls", certificates)] {
        let refused = Site::new().serve(&[wrong]).output().unwrap();
        let words = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(64) && words.contains("nowhere"), "{wrong:?}: {words}");
    }
}

#[tokio::test]
async fn the_environment_overrides_the_file_and_flags_override_both() {
    let site = Site::new();
    let mut command = site.serve(&[("gate.audiences", "[flags]")]);
    command.env("TOLLGATE__GATE__NAME", "berlin").env("TOLLGATE__GATE__AUDIENCES", "[environment]");
    // Nobody's business, and no reason to fail.
    command.env("LATIN1", std::ffi::OsString::from_vec(vec![b'c', 0xe9]));
    let gate = Gate::run(site, command);
    let license = |audience: &str| {
        let mut claims = gate.site().issuer.claims("license-1");
        claims["aud"] = audience.into();
        gate.site().issuer.sign(&claims)
    };
    assert!(super::gate::is_allowed(&gate.check(super::gate::ask(&license("flags"))).await));
    let denied = gate.check(super::gate::ask(&license("environment"))).await;
    assert_eq!(super::gate::codes(&denied), ["AUDIENCE_MISMATCH"]);
    let records = gate.stop().await.site.records();
    assert_eq!(records[0]["gate"], "berlin");
    assert!(records[0]["time"].as_str().unwrap() > "2026" && now() > 0);
}

#[test]
fn every_verb_has_help_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let help = tollgate(folder.path(), &["--help"]).stdout;
    let verbs = help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let verbs = verbs.filter(|verb| !["", "-h,", "-V,", "help", "policy"].contains(verb));
    for verb in verbs.chain(["policy validate", "policy test"]) {
        let arguments: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = tollgate(folder.path(), &arguments);
        assert_eq!(help.code, Some(0));
        assert!(help.stdout.contains(&format!("Example:\n  tollgate {verb}")), "{}", help.stdout);
    }
    // What scripts rely on is said where they are written.
    for (verb, words) in
        [("check", "Exits 0"), ("inspect", "Exits 0"), ("serve", "exits 64"), ("serve", "TOLLGATE__")]
    {
        let help = tollgate(folder.path(), &[verb, "--help"]).stdout;
        assert!(help.contains(words), "{verb}: {words}: {help}");
    }
}
