//! One changed bit, byte or character of a token, anywhere, and it never verifies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::Scalar;
use ed25519_dalek::{Signature, Verifier};
use proptest::prelude::*;
use sha2::{Digest, Sha512};
use tollgate::domain::Code;
use tollgate::keyring::Keys;
use tollgate::license::{Claims, jws, verify};

use crate::gate::{self, keyring};
use crate::samples;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The order of the group: a signature's `s` plus this is the same signature to a lax verifier.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn token(id: &str) -> String {
    let claims = samples::claims();
    gate::signed(&Claims { jti: id.to_owned(), ..claims })
}

/// What a changed token is refused with.
const OF_FORM: [Code; 4] =
    [Code::LicenseMalformed, Code::AlgorithmNotAllowed, Code::KeyUnknown, Code::SignatureInvalid];

fn refused(changed: &str, original: &str, keys: &Keys) -> Code {
    assert_ne!(changed, original);
    match verify::verify(changed, keys) {
        Ok(license) => panic!("{changed:?} verifies as {license:?}"),
        Err(refusal) => {
            assert!(OF_FORM.contains(&refusal.code), "{changed:?}: {refusal}");
            refusal.code
        }
    }
}

#[test]
fn no_bit_of_a_token_can_be_flipped() {
    let (keys, token) = (keyring().current(), token("license-1"));
    assert!(verify::verify(&token, &keys).is_ok());
    let mut readable = 0;
    for position in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[position] ^= 1 << bit;
            // What is not UTF-8 is no string, and never reaches the gate as a token.
            if let Ok(changed) = std::str::from_utf8(&bytes) {
                readable += 1;
                let code = refused(changed, &token, &keys);
                let payload = token.find('.').unwrap() + 1..token.rfind('.').unwrap();
                let kept = URL_SAFE_NO_PAD.decode(&changed[payload.clone()]).is_ok();
                if payload.contains(&position) && kept && !changed[payload].contains('.') {
                    assert_eq!(code, Code::SignatureInvalid, "{changed}");
                }
            }
        }
    }
    assert_eq!(readable, token.len() * 7);
}

#[test]
fn no_token_can_be_cut_or_grown() {
    let (keys, token) = (keyring().current(), token("license-1"));
    for length in 0..token.len() {
        refused(&token[..length], &token, &keys);
        refused(&token[token.len() - length..], &token, &keys);
    }
    for more in (0..=127_u8).map(char::from).chain(['\u{80}', '\u{a0}', '\u{feff}', '\u{10ffff}']) {
        refused(&format!("{token}{more}"), &token, &keys);
        refused(&format!("{more}{token}"), &token, &keys);
    }
    let parts: Vec<&str> = token.split('.').collect();
    for changed in [[0, 1, 0], [1, 0, 2], [0, 2, 1], [1, 1, 2]] {
        refused(&changed.map(|part| parts[part]).join("."), &token, &keys);
    }
}

#[test]
fn no_part_has_a_second_spelling() {
    let keys = keyring().current();
    // Lengths of every remainder by 3: each leaves other bits unused in the last character.
    for id in ["a", "ab", "abc"] {
        let token = token(id);
        for part in 0..3 {
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            let original = parts[part].clone();
            let bytes = URL_SAFE_NO_PAD.decode(&original).unwrap();
            let mut spellings = vec![format!("{original}="), format!("{original}==")];
            spellings.extend(
                ALPHABET
                    .iter()
                    .map(|last| format!("{}{}", &original[..original.len() - 1], char::from(*last))),
            );
            spellings.push(base64::engine::general_purpose::STANDARD.encode(&bytes));
            spellings.push(base64::engine::general_purpose::STANDARD_NO_PAD.encode(&bytes));
            spellings.extend([' ', '\n', '\0'].map(|blank| format!("{original}{blank}")));
            for spelling in spellings.into_iter().filter(|spelling| *spelling != original) {
                parts[part] = spelling;
                refused(&parts.join("."), &token, &keys);
            }
        }
    }
}

#[test]
fn the_other_alphabet_is_refused() {
    let keys = keyring().current();
    let tokens = (0..200).map(|number| token(&format!("license-{number}")));
    let (mut dashes, mut lines) = (0, 0);
    for token in tokens {
        if token.contains('-') {
            dashes += 1;
            refused(&token.replace('-', "+"), &token, &keys);
        }
        if token.contains('_') {
            lines += 1;
            refused(&token.replace('_', "/"), &token, &keys);
        }
    }
    assert!(dashes > 50 && lines > 50, "{dashes} with `-`, {lines} with `_`");
}

#[test]
fn a_signature_has_one_form() {
    let keys = keyring().current();
    for number in 0..50 {
        let token = token(&format!("license-{number}"));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let mut carry = 0;
        for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        let other = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(refused(&other, &token, &keys), Code::SignatureInvalid);
    }
}

/// Whoever has the key can make a signature whose `R` is the neutral element: a lax verifier accepts it,
/// a strict one does not (RFC 8032, section 8.9, leaves it open).
#[test]
#[allow(clippy::disallowed_methods, reason = "the lax verifier is what it is told from")]
fn a_signature_of_small_order_is_refused() {
    let (key, token) = (gate::key(), token("license-1"));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let neutral = [&[1_u8][..], &[0; 31]].concat();
    let mut hash = Sha512::new();
    for part in [&neutral[..], key.verifying_key().as_bytes(), signed.as_bytes()] {
        hash.update(part);
    }
    let s = Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * key.to_scalar();
    let made: [u8; 64] = [neutral, s.to_bytes().to_vec()].concat().try_into().unwrap();
    assert!(key.verifying_key().verify(signed.as_bytes(), &Signature::from_bytes(&made)).is_ok());
    let other = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(made));
    assert_eq!(refused(&other, &token, &keyring().current()), Code::SignatureInvalid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_character_of_any_token_can_be_another(
        id in "\\PC{1,40}", position in any::<prop::sample::Index>(), other in any::<char>(),
    ) {
        let token = token(&id);
        let keys = keyring().current();
        prop_assert!(verify::verify(&token, &keys).is_ok());
        let at = position.index(token.len());
        let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        prop_assert!(changed == token || verify::verify(&changed, &keys).is_err());
    }

    #[test]
    fn text_that_nobody_signed_is_no_license(text in "[A-Za-z0-9_.-]{0,200}|\\PC{0,80}") {
        prop_assert!(verify::verify(&text, &keyring().current()).is_err());
    }

    #[test]
    fn claims_that_the_key_did_not_sign_are_no_license(payload in any::<Vec<u8>>(), signature in any::<[u8; 32]>()) {
        let header = format!(r#"{{"alg":"EdDSA","typ":"license+jwt","kid":"{}"}}"#, gate::kid());
        let mut both = [0; 64];
        both[..32].copy_from_slice(&signature);
        let token = jws::compose(header.as_bytes(), &payload, |_| both);
        let refusal = verify::verify(&token, &keyring().current()).unwrap_err();
        prop_assert_eq!(refusal.code, Code::SignatureInvalid);
    }
}
