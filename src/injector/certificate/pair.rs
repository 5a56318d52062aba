//! A certificate with its key, made here, and the authority that vouches for it.
//!
//! The authority signs once and its key is never kept, so nobody can have it sign again. Refuses to judge a pair but as
//! an API server would. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

use crate::domain::time::Timestamp;

/// How long one is good for.
const LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long before its end it is replaced: time to mend what is in the way.
const RENEWAL: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clocks of API servers may be behind. Days, as certificates are dated here by the day.
const SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Where the parts are in a Secret.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";
const BEFORE: &str = "ca-before.crt";

/// All in PEM.
#[derive(Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
    authority: String,
    /// The authority of the one before, which others may still show.
    before: String,
}

impl Pair {
    /// A new one for this DNS name.
    pub(super) fn make(name: &str, before: Option<&Self>, now: Timestamp) -> Result<Self, rcgen::Error> {
        let mut params = dated(Vec::new(), now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "tollgate injector authority");
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);

        let mut params = dated(vec![name.to_owned()], now)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "tollgate injector");
        let key = KeyPair::generate()?;
        Ok(Self {
            certificate: params.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
            authority,
            before: before.map(|pair| pair.authority.clone()).unwrap_or_default(),
        })
    }

    /// The one in the data of a Secret; none where there is something else.
    pub(super) fn of(data: &BTreeMap<String, ByteString>) -> Option<Self> {
        let text = |name: &str| String::from_utf8(data.get(name)?.0.clone()).ok();
        Some(Self {
            certificate: text(CERTIFICATE)?,
            key: text(KEY)?,
            authority: text(AUTHORITY)?,
            before: text(BEFORE)?,
        })
    }

    /// As the data of a Secret.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let parts = [
            (CERTIFICATE, &self.certificate),
            (KEY, &self.key),
            (AUTHORITY, &self.authority),
            (BEFORE, &self.before),
        ];
        parts.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec()))).into()
    }

    /// Whom API servers are to trust.
    pub(super) fn bundle(&self) -> Vec<u8> {
        [self.authority.as_bytes(), self.before.as_bytes()].concat()
    }

    /// Whether who trusts this bundle trusts it.
    pub(super) fn is_vouched_for(&self, bundle: &[u8]) -> bool {
        let own = CertificateDer::from_pem_slice(self.authority.as_bytes());
        own.is_ok_and(|own| CertificateDer::pem_slice_iter(bundle).flatten().any(|other| other == own))
    }

    /// Whether another must be made.
    pub(super) fn is_due(&self, name: &str, now: Timestamp) -> bool {
        let soon = now.checked_add(RENEWAL);
        !soon.is_ok_and(|soon| self.is_good(name, soon))
    }

    /// Whether an API server that trusts its authority takes it for `name` at this time, and the key is its.
    fn is_good(&self, name: &str, at: Timestamp) -> bool {
        self.verified(name, at).is_some()
    }

    fn verified(&self, name: &str, at: Timestamp) -> Option<()> {
        let provider = Arc::new(ring::default_provider());
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        CertifiedKey::from_der(vec![certificate.clone()], key, &provider).ok()?.keys_match().ok()?;
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).ok()?).ok()?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider).build().ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().ok()?));
        let name = ServerName::try_from(name).ok()?;
        verifier.verify_server_cert(&certificate, &[], &name, &[], at).ok()?;
        Some(())
    }
}

/// What a certificate says that is good from now on.
fn dated(names: Vec<String>, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let day = |time: Result<Timestamp, jiff::Error>| {
        let date = time.map_err(|_| rcgen::Error::Time)?.to_zoned(TimeZone::UTC).date();
        let part = |number: i8| u8::try_from(number).map_err(|_| rcgen::Error::Time);
        Ok::<_, rcgen::Error>(rcgen::date_time_ymd(
            date.year().into(),
            part(date.month())?,
            part(date.day())?,
        ))
    };
    params.not_before = day(now.checked_sub(SLACK))?;
    params.not_after = day(now.checked_add(LIFETIME))?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "tollgate-injector.data.svc";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_good_for_90_days_and_replaced_after_60() {
        let pair = Pair::make(NAME, None, at("2026-01-10T12:00:00Z")).unwrap();
        assert!(!pair.is_good(NAME, at("2026-01-08T23:59:59Z")));
        assert!(pair.is_good(NAME, at("2026-01-09T12:00:00Z")), "clocks may be behind");
        assert!(pair.is_good(NAME, at("2026-04-09T23:59:59Z")));
        assert!(!pair.is_good(NAME, at("2026-04-10T00:00:01Z")));
        assert!(!pair.is_due(NAME, at("2026-03-10T00:00:00Z")));
        assert!(pair.is_due(NAME, at("2026-03-12T00:00:00Z")));
    }

    #[test]
    fn whoever_trusts_the_next_one_trusts_this_one_too() {
        let now = at("2026-01-10T12:00:00Z");
        let first = Pair::make(NAME, None, now).unwrap();
        let second = Pair::make(NAME, Some(&first), now).unwrap();
        let third = Pair::make(NAME, Some(&second), now).unwrap();
        let vouched = |pair: &Pair, by: &Pair| pair.is_vouched_for(&by.bundle());
        assert!(vouched(&first, &first) && vouched(&first, &second) && vouched(&second, &second));
        assert!(!vouched(&second, &first), "not yet");
        assert!(!vouched(&first, &third), "no more");
        assert!(!first.is_vouched_for(b""));
    }

    #[test]
    fn a_secret_gives_back_what_was_put_into_it() {
        let now = at("2026-01-10T12:00:00Z");
        let first = Pair::make(NAME, None, now).unwrap();
        let pair = Pair::make(NAME, Some(&first), now).unwrap();
        let data = pair.data();
        assert!(Pair::of(&data).unwrap() == pair);
        for part in data.keys() {
            let mut less = data.clone();
            less.remove(part);
            assert!(Pair::of(&less).is_none(), "without {part}");
        }
    }

    #[test]
    fn one_that_is_no_good_is_due() {
        let now = at("2026-01-10T12:00:00Z");
        let (pair, other) = (Pair::make(NAME, None, now).unwrap(), Pair::make(NAME, None, now).unwrap());
        assert!(!pair.is_due(NAME, now));
        assert!(pair.is_due("other.data.svc", now));
        assert!(Pair { key: other.key.clone(), ..pair.clone() }.is_due(NAME, now));
        assert!(Pair { authority: other.authority, ..pair.clone() }.is_due(NAME, now));
        assert!(Pair { certificate: "nonsense".to_owned(), ..pair.clone() }.is_due(NAME, now));
        assert!(Pair { authority: String::new(), ..pair }.is_due(NAME, now));
    }
}
