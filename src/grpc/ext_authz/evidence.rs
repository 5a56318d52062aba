//! What Envoy verified about a client's certificate, as evidence of who it is.
//!
//! Refuses names that are not SPIFFE ids of a trusted domain: a certificate may say anything in its other names.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::path;

/// The longest SPIFFE id, in bytes, as the standard has it.
const MAX_ID: usize = 2048;

/// The principal, where it is a SPIFFE id of a trusted domain.
pub(super) fn spiffe_id<'a>(principal: &'a str, trust_domains: &[String]) -> Option<&'a str> {
    let (domain, path) = principal.strip_prefix("spiffe://")?.split_once('/')?;
    let is_segment = |segment: &str| {
        let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        !matches!(segment, "" | "." | "..") && segment.bytes().all(known)
    };
    let is_trusted = trust_domains.iter().any(|trusted| trusted == domain);
    (is_trusted && principal.len() <= MAX_ID && path.split('/').all(is_segment)).then_some(principal)
}

/// The thumbprint (RFC 8705, section 3.1) of a certificate in URL-encoded PEM; none where there is none.
pub(super) fn thumbprint(certificate: &str) -> Result<Option<String>, &'static str> {
    if certificate.is_empty() {
        return Ok(None);
    }
    let pem = path::decode(certificate).map_err(|_| "it is not URL-encoded")?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| "it is not a certificate in PEM")?;
    Ok(Some(URL_SAFE_NO_PAD.encode(Sha256::digest(&der))))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    use super::*;

    #[test]
    fn only_ids_of_trusted_domains_count() {
        let trusted = ["example.org".to_owned()];
        for id in ["spiffe://example.org/a", "spiffe://example.org/ns/x/sa/y-1_2.3"] {
            assert_eq!(spiffe_id(id, &trusted), Some(id));
            assert_eq!(spiffe_id(id, &[]), None);
        }
        for other in [
            "",
            "example.org",
            "CN=spiffe://example.org/a",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/a%2fb",
            "spiffe://example.org.evil/a",
            "spiffe://evil.example.org/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org:443/a",
            "SPIFFE://example.org/a",
            "spiffe://EXAMPLE.org/a",
            "spiffe://example.org/a,O=Acme",
        ] {
            assert_eq!(spiffe_id(other, &trusted), None, "{other}");
        }
    }

    #[test]
    fn the_thumbprint_is_of_the_bytes_that_were_signed() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let encoded = utf8_percent_encode(&certificate.pem(), NON_ALPHANUMERIC).to_string();
        let expected = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
        assert_eq!(thumbprint(&encoded), Ok(Some(expected)));
        assert_eq!(thumbprint(""), Ok(None));
        for wrong in ["%", "nonsense", "-----BEGIN CERTIFICATE-----%0A!!%0A-----END CERTIFICATE-----"] {
            assert!(thumbprint(wrong).is_err(), "{wrong}");
        }
    }
}
