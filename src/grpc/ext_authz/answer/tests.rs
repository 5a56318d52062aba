//! No answer is one that Envoy takes for an allow by omission, whatever was decided.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::google::protobuf::value::Kind;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::outcome::QuotaState;
use crate::domain::{Amount, CheckRequest, Code, DecisionId, LicenseRef, Obligation, Reason};
use crate::grpc::envoy::denial::Denial;
use crate::proto::v1 as wire;

const LICENSE: Licensed<'_> = Licensed { id: "license-1", tier: Some("gold") };

fn now() -> Timestamp {
    "2026-03-02T09:59:00Z".parse().unwrap()
}

fn asked(is_grpc: bool) -> Asked {
    let question = CheckRequest {
        request_id: "4711".to_owned(),
        license: LicenseRef::Token("a.b.c".to_owned()),
        ..CheckRequest::default()
    };
    Asked { question, license_headers: vec!["authorization".to_owned()], is_grpc }
}

fn decision(effect: Effect, codes: &[Code]) -> Decision {
    Decision {
        id: DecisionId::new(now()),
        effect,
        enforced: true,
        reasons: codes.iter().map(|code| Reason::new(*code, "secret: for the administrator")).collect(),
        obligations: Vec::new(),
        valid_until: None,
        quotas: Vec::new(),
        reservation: None,
        status_as_of: None,
        policy_revision: "rev".into(),
        granting_policies: Vec::new(),
    }
}

fn quota(remaining: u64) -> QuotaState {
    QuotaState {
        id: "hourly".to_owned(),
        metric: "requests".to_owned(),
        limit: Amount::whole(5),
        remaining: Amount::whole(remaining),
        began_at: "2026-03-02T09:00:00Z".parse().unwrap(),
        resets_at: Some("2026-03-02T10:00:00Z".parse().unwrap()),
    }
}

fn answered(decision: &Decision, is_grpc: bool) -> CheckResponse {
    answer(decision, Some(LICENSE), &asked(is_grpc), &Envoy::default(), now()).unwrap()
}

/// What Envoy makes of an answer, as it was measured: an absent status is 0, and 0 is an allow whatever else is said.
fn status_of(response: &CheckResponse) -> Option<i32> {
    if response.status.as_ref().map_or(0, |status| status.code) == 0 {
        return None;
    }
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => {
            Some(denied.status.as_ref().map_or(403, |status| status.code))
        }
        _ => Some(403),
    }
}

fn headers(options: &[HeaderValueOption]) -> BTreeMap<&str, &str> {
    let all = options.iter().map(|option| option.header.as_ref().unwrap());
    all.map(|header| (header.key.as_str(), header.value.as_str())).collect()
}

fn allowed(response: &CheckResponse) -> &OkHttpResponse {
    match &response.http_response {
        Some(HttpResponse::OkResponse(allowed)) => allowed,
        other => panic!("{other:?}"),
    }
}

fn refused(response: &CheckResponse) -> &DeniedHttpResponse {
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

/// Every header that an answer sets, wherever.
fn every_header(response: &CheckResponse) -> Vec<&HeaderValueOption> {
    match response.http_response.as_ref().unwrap() {
        HttpResponse::OkResponse(ok) => ok.headers.iter().chain(&ok.response_headers_to_add).collect(),
        HttpResponse::DeniedResponse(no) | HttpResponse::ErrorResponse(no) => no.headers.iter().collect(),
    }
}

fn fields(response: &CheckResponse) -> BTreeMap<&str, &Kind> {
    let fields = &response.dynamic_metadata.as_ref().unwrap().fields;
    fields.iter().map(|(name, value)| (name.as_str(), value.kind.as_ref().unwrap())).collect()
}

#[test]
fn no_denial_is_read_as_an_allow_and_no_allow_as_a_denial() {
    let pairs = Code::ALL.iter().flat_map(|one| Code::ALL.iter().map(|other| vec![*one, *other]));
    for codes in pairs.chain([Vec::new()]) {
        for is_grpc in [false, true] {
            let response = answered(&decision(Effect::Deny, &codes), is_grpc);
            let status = status_of(&response).unwrap();
            assert!((400..600).contains(&status), "{codes:?}");
            if is_grpc {
                let of_grpc: i32 = headers(&refused(&response).headers)["grpc-status"].parse().unwrap();
                assert!(status == 403 && of_grpc != 0, "{codes:?}");
            } else {
                assert_eq!(status, i32::from(Denial::of_all(codes.clone()).http().as_u16()));
            }
        }
    }
    for is_grpc in [false, true] {
        let response = answered(&decision(Effect::Allow, &[]), is_grpc);
        assert_eq!((status_of(&response), response.status.as_ref().unwrap().code), (None, 0));
        allowed(&response);
    }
}

#[test]
fn an_allow_says_what_was_allowed_and_leaves_no_forged_word() {
    let mut decision = decision(Effect::Allow, &[]);
    decision.quotas = vec![quota(4)];
    decision.obligations = vec![Obligation {
        id: "cite".to_owned(),
        kind: "attribute".to_owned(),
        properties: json!({ "text": "Quelle: é\r\n" }).as_object().unwrap().clone(),
    }];
    let response = answered(&decision, false);
    let ok = allowed(&response);
    let sent = headers(&ok.headers);
    assert_eq!((sent[ID], sent[TIER]), ("license-1", "gold"));
    assert_eq!(sent[DECISION_ID], decision.id.to_string());
    let duties = r#"[{"id":"cite","type":"attribute","properties":{"text":"Quelle: \u00e9\r\n"}}]"#;
    assert_eq!(sent[OBLIGATIONS], duties);
    assert_eq!(ok.headers_to_remove, [ENFORCED, "authorization"]);
    let told = headers(&ok.response_headers_to_add);
    assert_eq!(
        (told["ratelimit-policy"], told["ratelimit"]),
        (r#""hourly";q=5;w=3600"#, r#""hourly";r=4;t=60"#)
    );

    decision.obligations.clear();
    let response = answer(&decision, None, &asked(false), &Envoy::default(), now()).unwrap();
    let ok = allowed(&response);
    assert_eq!(headers(&ok.headers).keys().collect::<Vec<_>>(), [&DECISION_ID]);
    assert_eq!(ok.headers_to_remove, [ID, TIER, OBLIGATIONS, ENFORCED, "authorization"]);
    let keeps = Envoy { keep_license: true, ..Envoy::default() };
    let response = answer(&decision, None, &asked(false), &keeps, now()).unwrap();
    assert_eq!(allowed(&response).headers_to_remove, [ID, TIER, OBLIGATIONS, ENFORCED]);
}

#[test]
fn duties_that_no_header_can_carry_are_no_allow() {
    let mut decision = decision(Effect::Allow, &[]);
    let duty = |size: usize| Obligation {
        id: "x".repeat(size),
        kind: "k".to_owned(),
        properties: Default::default(),
    };
    decision.obligations = vec![duty(MAX_OBLIGATIONS / 2)];
    answer(&decision, Some(LICENSE), &asked(false), &Envoy::default(), now()).unwrap();
    decision.obligations = vec![duty(MAX_OBLIGATIONS)];
    let status = answer(&decision, Some(LICENSE), &asked(false), &Envoy::default(), now()).unwrap_err();
    assert_eq!(status.code(), GrpcCode::ResourceExhausted);
}

#[test]
fn a_denial_says_why_in_words_for_the_user() {
    let mut decision = decision(Effect::Deny, &[Code::QuotaExceeded]);
    decision.quotas = vec![quota(0)];
    let response = answered(&decision, false);
    let refused = refused(&response);
    let sent = headers(&refused.headers);
    assert_eq!((sent["retry-after"], sent["ratelimit"]), ("60", r#""hourly";r=0;t=60"#));
    assert_eq!(sent["content-type"], "application/problem+json");
    assert_eq!(sent[DECISION_ID], decision.id.to_string());
    let body: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((&body["status"], &body["violated-policies"]), (&json!(429), &json!(["hourly"])));
    assert_eq!(body["codes"], json!(["QUOTA_EXCEEDED"]));
    assert_eq!(body["decision_id"], decision.id.to_string());
    assert_eq!(body["reasons"][0]["reason"], Code::QuotaExceeded.meaning());
    assert!(!refused.body.contains("secret"), "{}", refused.body);
}

#[test]
fn who_shows_no_good_license_is_told_to_show_one() {
    for (code, expected) in [(Code::Expired, Some(&"License")), (Code::PurposeNotLicensed, None)] {
        let response = answered(&decision(Effect::Deny, &[code]), false);
        assert_eq!(headers(&refused(&response).headers).get("www-authenticate"), expected);
    }
}

#[test]
fn grpc_clients_are_told_finely() {
    let mut decision = decision(Effect::Deny, &[Code::QuotaExceeded]);
    decision.reasons[0].reason_user = "100 % sûr\n".to_owned();
    let response = answered(&decision, true);
    let refused = refused(&response);
    let sent = headers(&refused.headers);
    assert_eq!((sent["grpc-status"], sent["grpc-message"]), ("8", "100 %25 s%C3%BBr%0A"));
    assert!(refused.body.is_empty());
}

#[test]
fn what_filters_are_told_holds_the_question_of_an_allow_and_of_no_denial() {
    let allow = decision(Effect::Allow, &[]);
    let response = answered(&allow, false);
    let told = fields(&response);
    assert_eq!(told["decision_id"], &Kind::StringValue(allow.id.to_string()));
    let Kind::StringValue(question) = told["question"] else { panic!("{told:?}") };
    let question = wire::CheckRequest::decode(STANDARD.decode(question).unwrap().as_slice()).unwrap();
    assert_eq!(convert::question(question).unwrap(), asked(false).question);
    let quiet = Envoy { kill_switch: false, ..Envoy::default() };
    let response = answer(&allow, Some(LICENSE), &asked(false), &quiet, now()).unwrap();
    assert!(!fields(&response).contains_key("question"));

    let mut deny = decision(Effect::Deny, &[Code::Expired, Code::Expired, Code::PurposeNotLicensed]);
    deny.quotas = vec![quota(3)];
    let response = answered(&deny, false);
    let told = fields(&response);
    assert!(!told.contains_key("question"));
    assert_eq!(told["license_id"], &Kind::StringValue("license-1".to_owned()));
    let Kind::ListValue(codes) = told["codes"] else { panic!("{told:?}") };
    assert_eq!(codes.values, [text("EXPIRED"), text("PURPOSE_NOT_LICENSED")]);
    let Kind::StructValue(quotas) = told["quotas"] else { panic!("{told:?}") };
    assert_eq!(quotas.fields["hourly"], text("3"));
}

fn any_code() -> impl Strategy<Value = Code> {
    prop::sample::select(Code::ALL)
}

proptest! {
    #[test]
    fn headers_are_visible_and_bounded_whatever_is_said(
        words in any::<String>(), long in 0..40_000_usize, codes in prop::collection::vec(any_code(), 0..60),
        is_grpc in any::<bool>(),
    ) {
        let words = format!("{words}{}", "x".repeat(long));
        let effect = if codes.is_empty() { Effect::Allow } else { Effect::Deny };
        let mut decision = decision(effect, &codes);
        for reason in &mut decision.reasons {
            reason.reason_user = words.clone();
            reason.would_pass_if = words.clone();
        }
        decision.quotas = vec![QuotaState { id: words.clone(), metric: words.clone(), ..quota(0) }; 40];
        let license = Licensed { id: &words, tier: Some(&words) };
        let response = answer(&decision, Some(license), &asked(is_grpc), &Envoy::default(), now()).unwrap();
        let all = every_header(&response);
        let sizes = all.iter().map(|option| {
            let header = option.header.as_ref().unwrap();
            assert!(header.value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", header.value);
            assert_eq!(option.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
            header.key.len() + header.value.len()
        });
        prop_assert!(sizes.sum::<usize>() < 20_000 && all.len() < 20);
        if let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response {
            prop_assert!(denied.body.len() < 128 << 10);
        }
    }
}
