//! Who may administer over TCP: by a client certificate, by a token that may change, and as policies say.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::proto::v1::license_service_client::LicenseServiceClient;
use tollgate::proto::v1::target::Which;
use tollgate::proto::v1::{
    AcceptTermsRequest, GetLicenseRequest, LicenseStatus, RevokeLicenseRequest, Standing,
    WatchLicensesRequest,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::gate::{Gate, Site, eventually};
use super::operators::{Admin, OVERRIDES, license};
use super::tls::Authority;

type Licenses = LicenseServiceClient<Channel>;

const READER: &str = "reader-0123456789-0123456789-0123456789";
const NEWER: &str = "newer-0123456789-0123456789-01234567890";

/// Where the gate says that it is administered.
fn address(gate: &Gate) -> String {
    let line: Value = serde_json::from_str(&gate.stderr.find("the gate is listening").unwrap()).unwrap();
    line["administration"].as_str().unwrap().to_owned()
}

async fn over_tls(gate: &Gate, authority: &Authority, own: Option<(String, String)>) -> Option<Licenses> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem));
    let tls = tls.domain_name("localhost");
    let tls = own.into_iter().fold(tls, |tls, (pem, key)| tls.identity(Identity::from_pem(pem, key)));
    let endpoint =
        Endpoint::from_shared(format!("https://{}", address(gate))).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.ok().map(Licenses::new)
}

async fn look(licenses: &mut Licenses) -> Code {
    let request = GetLicenseRequest { license_id: "license-1".into() };
    licenses.get_license(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn revoke(licenses: &mut Licenses) -> Result<(), Status> {
    let request = RevokeLicenseRequest { target: license("license-1"), reason: "a test".into() };
    licenses.revoke_license(request).await.map(drop)
}

#[tokio::test]
async fn certificates_say_who_acts_and_scopes_what_they_may() {
    let (site, authority) = (Site::new(), Authority::new());
    let (certificate, key) = authority.sign_for("localhost");
    site.write("ca.crt", &authority.pem);
    site.write("own.crt", &certificate);
    site.write("own.key", &key);
    let operators = "[{subject: auditor, scope: read}, {subject: console, scope: operate}]";
    let gate = site.start(&[
        ("listeners.administration.tcp", "127.0.0.1:0"),
        ("listeners.administration.tls.certificate", "own.crt"),
        ("listeners.administration.tls.key", "own.key"),
        ("listeners.administration.tls.client_ca", "ca.crt"),
        ("listeners.administration.operators", operators),
    ]);
    let mut console = over_tls(&gate, &authority, Some(authority.sign_for("console"))).await.unwrap();
    let mut auditor = over_tls(&gate, &authority, Some(authority.sign_for("auditor"))).await.unwrap();
    let mut stranger = over_tls(&gate, &authority, Some(authority.sign_for("somebody"))).await.unwrap();
    assert_eq!(look(&mut stranger).await, Code::Unauthenticated);
    assert_eq!(look(&mut auditor).await, Code::NotFound, "it may look");
    assert_eq!(revoke(&mut auditor).await.unwrap_err().code(), Code::PermissionDenied);
    revoke(&mut console).await.unwrap();
    // A certificate of another authority, and none.
    let elsewhere = Authority::new().sign_for("console");
    for own in [Some(elsewhere), None] {
        if let Some(mut licenses) = over_tls(&gate, &authority, own).await {
            assert!(![Code::Ok, Code::NotFound].contains(&look(&mut licenses).await));
        }
    }
    let acts = gate.stop().await.site.records();
    let told: Vec<_> = acts.iter().map(|act| (act["operator"].as_str(), act["outcome"].as_str())).collect();
    assert_eq!(told, [(Some("auditor"), Some("forbidden")), (Some("console"), Some("done"))]);
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn tokens_are_read_again_and_policies_say_more_than_scopes() {
    let site = Site::new();
    site.write("tokens.yaml", &format!("- {{name: ci, scope: operate, token: {READER}}}\n"));
    site.write(
        "policies/administration/own.cedar",
        "@id(\"house/no-machines\") @reason(\"People revoke.\") @admin(\"a machine asked\") @passes(\"a person asks\")\n\
         forbid (\n  principal == Tollgate::Administration::Operator::\"ci\",\n  \
         action == Tollgate::Administration::Action::\"RevokeLicense\",\n  resource\n);\n",
    );
    let gate = site.start(&[
        ("listeners.administration.tcp", "127.0.0.1:0"),
        ("listeners.administration.tokens", "tokens.yaml"),
        ("policies.directory", "policies"),
    ]);
    let channel =
        Endpoint::from_shared(format!("http://{}", address(&gate))).unwrap().connect().await.unwrap();
    let mut licenses = Licenses::new(channel);
    let look = async |licenses: &mut Licenses, token: &str| {
        let request = with_token(GetLicenseRequest { license_id: "license-1".into() }, token);
        licenses.get_license(request).await.unwrap_err().code()
    };
    assert_eq!(look(&mut licenses, READER).await, Code::NotFound);
    assert_eq!(look(&mut licenses, NEWER).await, Code::Unauthenticated);
    let request = RevokeLicenseRequest { target: license("license-1"), reason: "a test".into() };
    let status = licenses.revoke_license(with_token(request, READER)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("house/no-machines"), "{status}");
    // A file that is wrong leaves the old in force.
    gate.site().write("tokens.yaml", "- {name: ci}\n");
    eventually("it is refused", async || gate.stderr.find("new tokens are refused").is_some()).await;
    assert_eq!(look(&mut licenses, READER).await, Code::NotFound);
    gate.site().write("tokens.yaml", &format!("- {{name: ci, scope: read, token: {NEWER}}}\n"));
    eventually("the new one counts", async || look(&mut licenses, NEWER).await == Code::NotFound).await;
    assert_eq!(look(&mut licenses, READER).await, Code::Unauthenticated);
}

#[tokio::test]
async fn who_may_not_accept_terms_does_not_learn_which_are_asked_for() {
    let site = Site::new();
    site.write("tokens.yaml", &format!("- {{name: dashboard, scope: read, token: {READER}}}\n"));
    let mut claims = site.issuer.claims("license-1");
    claims["terms"]["acceptance"] = json!({"terms_hash": "R2VlbiB0ZXJtcw"});
    let token = site.issuer.sign(&claims);
    let gate = site.start(&[
        OVERRIDES[0],
        ("listeners.administration.tcp", "127.0.0.1:0"),
        ("listeners.administration.tokens", "tokens.yaml"),
    ]);
    let mut admin = Admin::of(&gate).await;
    admin.register(&token).await.unwrap();
    let accept = AcceptTermsRequest {
        license_id: "license-1".into(),
        terms_hash: "other".into(),
        accepted_by: "ana".into(),
        ..AcceptTermsRequest::default()
    };
    let channel = Endpoint::from_shared(format!("http://{}", address(&gate))).unwrap().connect().await;
    let mut reader = Licenses::new(channel.unwrap());
    let status = reader.accept_terms(with_token(accept.clone(), READER)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(!status.message().contains("R2VlbiB0ZXJtcw"), "{status}");
    let status = admin.0.accept_terms(accept).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("R2VlbiB0ZXJtcw"), "{status}");
    let acts = gate.stop().await.site.records();
    let told: Vec<_> = acts.iter().map(|act| (act["act"].as_str(), act["outcome"].as_str())).collect();
    let accepting = |outcome| (Some("AcceptTerms"), Some(outcome));
    assert_eq!(told, [(Some("RegisterLicense"), Some("done")), accepting("forbidden"), accepting("refused")]);
}

#[tokio::test]
async fn a_watch_tells_what_is_not_valid_and_then_every_change() {
    let gate = Gate::start(OVERRIDES);
    let mut admin = Admin::of(&gate).await;
    admin.suspend("before").await;
    admin.suspend("lifted").await;
    admin.reinstate("lifted").await;
    let mut changes = admin.0.watch_licenses(WatchLicensesRequest::default()).await.unwrap().into_inner();
    let mut next = async || -> Standing { changes.message().await.unwrap().unwrap().standing.unwrap() };
    let told = |standing: Standing| (standing.target.clone(), standing.status());
    assert_eq!(told(next().await).1, LicenseStatus::Suspended);
    admin.reinstate("before").await;
    let (target, status) = told(next().await);
    assert_eq!((target.unwrap().which, status), (license("before").unwrap().which, LicenseStatus::Valid));
    admin.revoke("another").await;
    let revoked = next().await;
    assert_eq!((revoked.status(), revoked.reason.as_str()), (LicenseStatus::Revoked, "a test"));
    assert!(revoked.actor.starts_with("unix:") && revoked.revision == 5, "{revoked:?}");
}

#[tokio::test]
async fn a_gate_that_stops_tells_those_who_watch() {
    let gate = Gate::start(OVERRIDES);
    let mut watches = Vec::new();
    for _ in 0..40 {
        let mut admin = Admin::of(&gate).await;
        watches.push(admin.0.watch_licenses(WatchLicensesRequest::default()).await.unwrap().into_inner());
    }
    let stopping = tokio::spawn(gate.stop());
    for watch in &mut watches {
        let status = watch.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("shutting down"), "{status:?}");
    }
    assert_eq!(stopping.await.unwrap().code, Some(0));
}

#[tokio::test]
async fn an_act_is_recorded_also_where_nobody_waits_for_its_answer() {
    let gate = Gate::start(OVERRIDES);
    let mut admin = Admin::of(&gate).await;
    let mut abandoned = 0;
    for number in 0..200 {
        let id = format!("license-{number}");
        let patience = Duration::from_micros(number * 20);
        let answer = tokio::time::timeout(patience, admin.try_revoke(&id)).await;
        abandoned += u32::from(answer.is_err());
    }
    assert!(abandoned > 20, "{abandoned}");
    // By then all that was begun is done.
    tokio::time::sleep(Duration::from_millis(300)).await;
    admin.revoke("last").await;
    let mut changes = admin.0.watch_licenses(WatchLicensesRequest::default()).await.unwrap().into_inner();
    let mut revoked = BTreeSet::new();
    while !revoked.contains("last") {
        let standing = changes.message().await.unwrap().unwrap().standing.unwrap();
        let Some(Which::LicenseId(id)) = standing.target.unwrap().which else { panic!("of a license") };
        revoked.insert(id);
    }
    eventually("every act has its record", async || {
        let records = gate.site().records();
        let acts = records.iter().filter(|record| record["act"] == "RevokeLicense");
        let recorded: BTreeSet<_> = acts.filter_map(|act| act["target"]["id"].as_str()).collect();
        revoked.iter().all(|id| recorded.contains(id.as_str()))
    })
    .await;
}
