//! Who asks: a token that Envoy verified, beside the license.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::{Scene, program, site, start_gate};

/// Whoever issues OAuth tokens.
pub(crate) struct Login(SigningKey);

impl Login {
    pub(crate) fn new() -> Self {
        Self(SigningKey::from_bytes(&[7; 32]))
    }

    pub(crate) fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.verifying_key().as_bytes());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k", "x": x }] })
            .to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed =
            format!("{}.{}", part(&json!({ "alg": "EdDSA", "kid": "k", "typ": "JWT" })), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()).to_bytes()))
    }
}

#[tokio::test]
async fn a_verified_token_says_who_asks_and_the_license_what_for() {
    let Some(program) = program() else { return };
    let login = Login::new();
    let gate = start_gate(site(), &[]);
    let jwks = login.jwks();
    let scene = Scene::around(program, gate, "jwt.yaml", &[], &[("login.jwks.json", &jwks)]).await;
    let issuer = &scene.gate.site().issuer;
    let mut claims = issuer.claims("license-1");
    claims["terms"]["users"] = json!(["ana"]);
    claims["terms"]["roles"] = json!(["analyst"]);
    let license = format!("data-license: {}", issuer.sign(&claims));
    let research = "x-purpose: ScientificResearch";
    let now = crate::gate::now();
    let bearer = |sub: &str, roles: Value| {
        let claims = json!({
            "iss": "https://login.example", "aud": "data", "sub": sub, "roles": roles, "exp": now + 600,
        });
        format!("authorization: Bearer {}", login.token(&claims))
    };
    let ana = bearer("ana", json!(["lead", "analyst"]));
    let answer = scene.read("sales/eu", &[&ana, &license, research, "x-user: eve"]).await;
    assert_eq!(answer.status, 200, "{answer:?} {}", scene.envoy.stderr.text());
    assert!(answer.passed("data-license").is_empty());
    let record = scene.record(&answer.passed("x-license-decision-id").concat()).await;
    assert_eq!(
        record["subject"],
        json!({ "id": "ana", "organization": "acme", "roles": ["lead", "analyst"] })
    );

    let eve = bearer("eve", json!("analyst"));
    let answer = scene.read("sales/eu", &[&eve, &license, research]).await;
    assert_eq!((answer.status, answer.codes()), (403, vec!["USER_NOT_LICENSED".to_owned()]));
    let roleless = bearer("ana", json!({ "analyst": true }));
    let answer = scene.read("sales/eu", &[&roleless, &license, research]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = scene.read("sales/eu", &[&ana, research]).await;
    assert_eq!((answer.status, answer.codes()), (401, vec!["LICENSE_MISSING".to_owned()]));
    // Envoy itself refuses who has no token, and then asks nobody.
    assert_eq!(scene.read("sales/eu", &[&license, research]).await.status, 401);
    assert_eq!(scene.upstream.asked(), 1);
    let asked = scene.gate.stop().await.site.records();
    assert_eq!(asked.len(), 4);
}
