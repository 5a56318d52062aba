//! Where the certificate is kept in the cluster, and where API servers read whom to trust.
//!
//! Refuses to write over what it does not know, or over what somebody changed meanwhile. Makes and removes no objects.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::pair::Pair;
use super::{CertificateError, Names};

/// The one who writes, to Kubernetes.
const WRITER: &str = "tollgate-injector";

#[derive(Clone)]
pub(super) struct Cluster {
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
}

/// A Secret as it was read.
pub(super) struct Kept {
    secret: Secret,
    pub(super) pair: Option<Pair>,
}

/// What API servers trust, by the name of each webhook.
pub(super) struct Trust(BTreeMap<String, Vec<u8>>);

impl Trust {
    /// Whether all take this one for whom they ask.
    pub(super) fn covers(&self, pair: &Pair) -> bool {
        self.0.values().all(|bundle| pair.is_vouched_for(bundle))
    }

    /// Whether each is just this.
    pub(super) fn is(&self, bundle: &[u8]) -> bool {
        self.0.values().all(|own| own == bundle)
    }
}

impl Cluster {
    pub(super) fn of(client: &kube::Client) -> Self {
        Self { secrets: Api::default_namespaced(client.clone()), webhooks: Api::all(client.clone()) }
    }

    /// What is in the Secret; nothing where it is empty.
    pub(super) async fn kept(&self, names: &Names) -> Result<Kept, CertificateError> {
        let secret =
            self.secrets.get(&names.secret).await.map_err(CertificateError::at("Secret", &names.secret))?;
        let pair = match &secret.data {
            Some(data) if !data.is_empty() => {
                Some(Pair::of(data).ok_or_else(|| CertificateError::Foreign(names.secret.clone()))?)
            }
            _ => None,
        };
        Ok(Kept { secret, pair })
    }

    /// Puts this one into the Secret, unless that changed since it was read.
    pub(super) async fn keep(&self, kept: &Kept, pair: &Pair) -> Result<(), CertificateError> {
        let secret = Secret { data: Some(pair.data()), ..kept.secret.clone() };
        let name = secret.metadata.name.clone().unwrap_or_default();
        let params = PostParams { field_manager: Some(WRITER.to_owned()), ..PostParams::default() };
        self.secrets.replace(&name, &params, &secret).await.map_err(CertificateError::at("Secret", &name))?;
        Ok(())
    }

    pub(super) async fn trust(&self, names: &Names) -> Result<Trust, CertificateError> {
        let webhook = self.webhooks.get(&names.webhook).await.map_err(at_webhook(names))?;
        let bundle = |bundle: Option<ByteString>| bundle.map(|bundle| bundle.0).unwrap_or_default();
        let webhooks = webhook.webhooks.unwrap_or_default().into_iter();
        Ok(Trust(webhooks.map(|webhook| (webhook.name, bundle(webhook.client_config.ca_bundle))).collect()))
    }

    /// Has API servers trust this bundle.
    pub(super) async fn vouch(
        &self,
        names: &Names,
        trust: &Trust,
        bundle: &[u8],
    ) -> Result<(), CertificateError> {
        let bundle = ByteString(bundle.to_vec());
        let webhook = |name| json!({"name": name, "clientConfig": {"caBundle": bundle}});
        // Webhooks are told apart by their names: what else is said of them stays.
        let patch = json!({"webhooks": trust.0.keys().map(webhook).collect::<Vec<_>>()});
        let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
        self.webhooks
            .patch(&names.webhook, &params, &Patch::Strategic(patch))
            .await
            .map_err(at_webhook(names))?;
        Ok(())
    }
}

fn at_webhook(names: &Names) -> impl FnOnce(kube::Error) -> CertificateError {
    CertificateError::at("MutatingWebhookConfiguration", &names.webhook)
}
