//! A dataset path covers what its segments begin, and nothing else.

use proptest::prelude::*;
use tollgate::domain::DatasetPath;

/// Paths that are often above one another, and often only look so.
fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof!["[ab]{1,2}", "a[.*-]", "\\PC{1,2}"];
    let joined = prop::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"));
    prop_oneof![1 => Just("*".to_owned()), 9 => joined]
}

/// Written as differently from the real one as can be.
fn covers(one: &str, other: &str) -> bool {
    let (one_segments, other_segments): (Vec<&str>, Vec<&str>) =
        (one.split('/').collect(), other.split('/').collect());
    one == "*"
        || (one_segments.len() <= other_segments.len()
            && one_segments.iter().zip(&other_segments).all(|(a, b)| a == b))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn covering_is_beginning_with_the_same_segments(one in path(), other in path(), more in path()) {
        let below = format!("{one}/{more}");
        for (one, other) in [(&one, &other), (&one, &below), (&one, &one)] {
            if let (Ok(a), Ok(b)) = (one.parse::<DatasetPath>(), other.parse::<DatasetPath>()) {
                prop_assert_eq!(a.covers(&b), covers(one, other), "{} {}", one, other);
                let above: Vec<&str> = b.ancestors().collect();
                prop_assert_eq!(a.covers(&b), one == other || above.contains(&one.as_str()));
            }
        }
    }

    #[test]
    fn what_is_accepted_is_kept_as_it_is(text in "[a*./\\x00é]{0,8}") {
        if let Ok(path) = text.parse::<DatasetPath>() {
            prop_assert_eq!(path.as_str(), &text);
            prop_assert!(text.split('/').all(|segment| !["", ".", ".."].contains(&segment)));
        }
    }
}
