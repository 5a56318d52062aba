//! What a person writes is what a gate reads: terms file, claims, token, and back.

use std::collections::BTreeSet;

use jiff::{Span, Timestamp};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;
use tollgate::document::Document;
use tollgate::domain::terms::{Anonymization, Iso8601Duration, Terms};
use tollgate::domain::{Action, DatasetPath};
use tollgate::license::{Audience, Claims, Confirmation, Draft, verify};

use crate::gate::{ISSUER, NOW, keyring, signed};
use crate::samples::{PROHIBITIONS, obligation};

/// Words that YAML could take for something else, and any others.
fn word() -> impl Strategy<Value = String> {
    let odd = [
        "NO",
        "true",
        "null",
        "~",
        "1",
        "1.0",
        "0x1f",
        "2026-01-01",
        "a: b",
        "- a",
        "#",
        "'",
        "\"",
        "!x",
        "*",
        "&a",
        " a ",
        "a\nb",
        "|",
        "\u{85}",
        "é",
        "\u{2028}",
        "\u{feff}",
    ];
    prop_oneof![2 => "[a-z]{1,8}", 2 => select(odd.to_vec()).prop_map(str::to_owned), 1 => "\\PC{1,12}", 1 => any::<String>()]
        .prop_filter("not empty, not long", |word| (1..=256).contains(&word.len()))
        // JSON may hold these as they are, YAML may not: a file with them is refused.
        .prop_filter("printable in YAML", |word| {
            !word.contains(|c| matches!(c, '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}'))
        })
}

fn words() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set(word(), 1..4)
}

fn paths() -> impl Strategy<Value = BTreeSet<DatasetPath>> {
    let path = prop_oneof![Just("*".to_owned()), "[a-z.]{1,4}(/[a-zé ]{1,4}){0,3}"];
    prop::collection::btree_set(path.prop_filter_map("a path", |path| path.parse().ok()), 1..4)
}

fn standard() -> impl Strategy<Value = Anonymization> {
    let whole = || option::of(2..=1_000_000_000_u32);
    let number = |most: f64| {
        option::of(prop_oneof![0.0..=most, (0..=10_000_u32).prop_map(move |n| f64::from(n) / 10_000.0)])
    };
    (whole(), whole(), number(1.0), number(1e6), words()).prop_map(
        |(k_anonymity, l_diversity, t_closeness, epsilon, techniques)| Anonymization {
            k_anonymity,
            l_diversity,
            t_closeness,
            epsilon,
            techniques,
            attested_by: BTreeSet::new(),
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    let granted = (paths(), subsequence(&Action::ALL[..], 1..=11), words());
    let limits = (option::of(words()), option::of(words()), option::of(words()), option::of(words()));
    let quota =
        prop_oneof![0.0..1e18_f64, any::<f64>().prop_filter("a limit", |n| n.is_finite() && *n >= 0.0)];
    let more = (
        subsequence(&PROHIBITIONS[..], 0..=4),
        option::of(standard()),
        option::of(quota),
        option::of(word()),
    );
    (granted, limits, more, prop::collection::btree_map(word(), word(), 0..3)).prop_map(
        |((datasets, actions, purposes), (users, roles, regions, environments), (prohibitions, anonymization, quota, tier), duties)| {
            let quota = quota.map(|limit| json!({ "id": "q", "metric": "rows", "limit": limit, "per": "user", "window": "month" }));
            Terms {
                tier,
                datasets,
                actions: actions.into_iter().collect(),
                purposes,
                users,
                roles,
                projects: None,
                regions,
                environments,
                prohibitions: prohibitions.into_iter().collect(),
                anonymization,
                quotas: quota.into_iter().map(|quota| serde_json::from_value(quota).unwrap()).collect(),
                retention: None,
                legal_basis: None,
                regulations: BTreeSet::new(),
                acceptance: None,
                duties: duties.into_iter().map(|(name, value)| {
                    let mut duty = obligation(&name);
                    duty.properties.insert(value, json!([1, -1.5, null, { "deep": "er" }]));
                    duty
                }).collect(),
            }
        },
    )
}

fn draft() -> impl Strategy<Value = Draft> {
    let moment = |from: i64, to: i64| {
        (from..to, 0..1_000_000_000_i32).prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
    };
    let audience = prop_oneof![word().prop_map(Audience::One), words().prop_map(Audience::Several)];
    let holder = prop_oneof![
        word().prop_map(Confirmation::SpiffeId),
        word().prop_map(Confirmation::CertificateThumbprint),
        word().prop_map(Confirmation::JwkThumbprint),
    ];
    let end = prop_oneof![
        moment(1_790_000_000, 4_000_000_000).prop_map(|end| (Some(end), None)),
        (1..400_i64, 0..90_000_i64).prop_map(|(days, seconds)| (
            None,
            Some(Iso8601Duration(Span::new().days(days).seconds(seconds)))
        )),
    ];
    let begin = option::of(moment(-1_000_000_000, 1_780_000_000));
    (word(), option::of(word()), begin, end, option::of(audience), option::of(holder), terms()).prop_map(
        |(assignee, id, not_before, (expires, valid_for), audience, holder, terms)| Draft {
            assignee,
            id,
            not_before,
            expires,
            valid_for,
            audience,
            holder,
            terms,
        },
    )
}

fn read(text: &str) -> Result<Draft, TestCaseError> {
    let draft = Document::parse("terms.yaml", text).and_then(|document| document.decode());
    draft.map_err(|problems| TestCaseError::fail(format!("{problems}\n{text}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_verified(draft in draft()) {
        let as_json = serde_json::to_string_pretty(&draft).unwrap();
        prop_assert_eq!(&read(&as_json)?, &draft, "{}", as_json);
        let as_yaml = serde_saphyr::to_string(&draft).unwrap();
        prop_assert_eq!(&read(&as_yaml)?, &draft, "{}", as_yaml);
        let now = NOW + jiff::SignedDuration::from_millis(1_234);
        let claims: Claims = draft.clone().claims(ISSUER, || "made".to_owned(), now).unwrap();
        prop_assert!(claims.iat <= now && claims.nbf >= draft.not_before.unwrap_or(claims.iat));
        prop_assert!(draft.expires.is_none_or(|end| claims.exp <= end));
        prop_assert_eq!((&claims.sub, &claims.terms), (&draft.assignee, &draft.terms));
        let license = verify::verify(&signed(&claims), &keyring().current()).unwrap();
        prop_assert_eq!(license.claims, claims);
    }

    #[test]
    fn any_text_is_a_draft_or_has_located_problems(text in prop_oneof![
        any::<String>(),
        "[\\[\\]{}:,\"'&*!|>?#%@\\-\n \\ta-c0-9~.<=]{0,80}",
        "(assignee|terms|datasets|id|expires|valid_for|audience|x): ?(a|1|\\[a, a\\]|\\{\\}|\n  (datasets|terms): \\[\\])?\n(assignee|terms|id): .{0,9}",
    ]) {
        if let Err(problems) = Document::parse("terms.yaml", &text).and_then(|document| document.decode::<Draft>()) {
            prop_assert!(!problems.0.is_empty());
            let lines = u32::try_from(text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count()).unwrap();
            for problem in problems {
                prop_assert_eq!(&problem.origin, "terms.yaml");
                prop_assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{:?}", problem);
                let located = problem.line.is_some() || text.lines().all(|line| {
                    let line = line.trim();
                    line.is_empty() || line.starts_with('#') || line == "---"
                });
                prop_assert!(located, "{:?} is nowhere", problem);
            }
        }
    }
}
