//! What Prometheus sees of each instrument after it was used.

use super::*;

fn lines(instruments: &Instruments, name: &str) -> Vec<String> {
    let text = instruments.render().unwrap();
    text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[test]
fn codes_index_their_own_count() {
    for (index, code) in Code::ALL.iter().enumerate() {
        assert_eq!(*code as usize, index);
    }
}

#[test]
fn checks_are_counted_and_timed() {
    let instruments = Instruments::detached();
    instruments.record_check(Effect::Allow, std::iter::empty(), Duration::from_micros(20));
    let codes = [Code::Expired, Code::PurposeNotLicensed];
    instruments.record_check(Effect::Deny, codes.into_iter(), Duration::from_millis(2));
    instruments.record_check(Effect::Deny, [Code::Expired].into_iter(), Duration::from_secs(3));
    instruments.undecided("license_unreadable");
    let text = instruments.render().unwrap();
    for line in [
        "# TYPE tollgate_checks_total counter",
        "tollgate_checks_total{decision=\"allow\"} 1",
        "tollgate_checks_total{decision=\"deny\"} 2",
        "tollgate_denials_total{code=\"EXPIRED\"} 2",
        "tollgate_denials_total{code=\"PURPOSE_NOT_LICENSED\"} 1",
        "tollgate_denials_total{code=\"POLICY_FORBIDS\"} 0",
        "tollgate_undecided_total{kind=\"license_unreadable\"} 1",
        "tollgate_check_duration_seconds_bucket{decision=\"allow\",le=\"0.00001\"} 0",
        "tollgate_check_duration_seconds_bucket{decision=\"allow\",le=\"0.000025\"} 1",
        "tollgate_check_duration_seconds_bucket{decision=\"deny\",le=\"1\"} 1",
        "tollgate_check_duration_seconds_count{decision=\"deny\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn caches_reloads_and_records_are_shown() {
    let instruments = Instruments::detached();
    instruments.cache_lookup(CacheName::PolicyAnswers, true);
    instruments.cache_lookup(CacheName::PolicyAnswers, false);
    instruments.register_cache_size(CacheName::VerifiedLicenses, || 4096);
    instruments.reload(Reloaded::Policies, true, "2026-01-02T03:04:05.5Z".parse().unwrap());
    instruments.reload(Reloaded::Policies, false, "2026-01-02T04:00:00Z".parse().unwrap());
    instruments.register_audit(|| AuditFigures {
        queued: 3,
        capacity: 100,
        written: 2,
        bytes: 500,
        failures: 1,
    });
    instruments.audit_lost();
    let text = instruments.render().unwrap();
    for line in [
        "tollgate_cache_lookups_total{cache=\"policy_answers\",result=\"hit\"} 1",
        "tollgate_cache_lookups_total{cache=\"policy_answers\",result=\"miss\"} 1",
        "tollgate_cache_size_bytes{cache=\"verified_licenses\"} 4096",
        "tollgate_reloads_total{result=\"success\",what=\"policies\"} 1",
        "tollgate_reloads_total{result=\"failure\",what=\"policies\"} 1",
        "tollgate_last_reload_success_timestamp_seconds{what=\"policies\"} 1767323045.5",
        "tollgate_audit_queue_depth 3",
        "tollgate_audit_queue_capacity 100",
        "tollgate_audit_records_total 2",
        "tollgate_audit_written_bytes_total 500",
        "tollgate_audit_lost_total 1",
        "tollgate_audit_failures_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn only_the_revision_in_force_is_shown() {
    let instruments = Instruments::detached();
    instruments.policy_revision("one");
    assert_eq!(lines(&instruments, "tollgate_policy_info"), ["tollgate_policy_info{revision=\"one\"} 1"]);
    instruments.policy_revision("two");
    assert_eq!(lines(&instruments, "tollgate_policy_info"), ["tollgate_policy_info{revision=\"two\"} 1"]);
}
