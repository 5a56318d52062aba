//! Everything that the fuzzer found worth keeping goes through the same laws, on every test run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::bodies::{self, Scene, TARGETS};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_laws_hold_for_every_file() {
    let scene = Scene::new();
    for (name, body) in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for entry in std::fs::read_dir(folder().join("corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let count =
                if body(&scene, &std::fs::read(&path).unwrap()) { &mut accepted } else { &mut refused };
            *count += 1;
        }
        // A corpus whose every file is turned away at the door shows nothing of what is behind it.
        assert!(accepted > 0 && refused > 0, "{name}: {accepted} accepted, {refused} refused");
    }
}

#[test]
fn every_target_has_a_body_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder().join("fuzz_targets")), targets);
    assert_eq!(names(&folder().join("corpus")), targets);
}

#[test]
#[ignore = "writes the files of fuzz/corpus that must change when the format of licenses or requests does"]
fn write_the_seeds_that_hold_a_license() {
    let token = Scene::new().token;
    let mut request = bodies::question();
    request.license = tollgate::domain::LicenseRef::Token(token.clone());
    request.explain = true;
    let message = prost::Message::encode_to_vec(&tollgate::grpc::convert::ask(request));
    let asked = prost::Message::encode_to_vec(&bodies::asked_by_envoy(&token));
    std::fs::write(folder().join("corpus/ext_authz/allowed"), asked).unwrap();
    let evaluation = evaluation(&token).to_string();
    std::fs::write(folder().join("corpus/evaluation/allowed.json"), evaluation).unwrap();
    std::fs::write(folder().join("corpus/token/signed"), token).unwrap();
    std::fs::write(folder().join("corpus/claims/licensed.json"), bodies::CLAIMS).unwrap();
    std::fs::write(folder().join("corpus/check_request/allowed"), message).unwrap();
}

/// [`bodies::question`] as AuthZEN has it.
fn evaluation(token: &str) -> serde_json::Value {
    let question = bodies::question();
    let subject = question.subject;
    serde_json::json!({
        "subject": {"type": "user", "id": subject.id, "properties": {"organization": subject.organization}},
        "action": {"name": question.action},
        "resource": {"type": "dataset", "id": question.resource.id},
        "context": {"license": token, "purpose": question.purpose, "region": question.region},
    })
}
