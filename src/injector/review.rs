//! Reviews of Kubernetes: what the API server asks about a pod, and what it is told.
//!
//! Refuses a review that is malformed, or about anything but the making of a pod: the API server was told to ask wrongly.

use k8s_openapi::api::core::v1::Pod;
use kube::core::Status;
use kube::core::admission::{
    AdmissionRequest, AdmissionResponse, AdmissionReview, META_API_VERSION_V1, Operation, SerializePatchError,
};
use kube::core::dynamic::DynamicObject;

use super::patch::{Injection, inject};
use super::template::Template;

/// What a pod that cannot have a gate is refused with: unprocessable, and so nothing to try again.
const UNPROCESSABLE: u16 = 422;

/// Why a review is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    /// It is no review of a pod.
    #[error("this is no AdmissionReview of a pod: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version.
    #[error("apiVersion `{0}` is not `{META_API_VERSION_V1}`")]
    Version(String),
    /// It asks nothing.
    #[error("the review has no request with a pod and its spec")]
    Empty,
    /// It is about something else.
    #[error(
        "only the CREATE of pods is reviewed here, not the {operation:?} of `{resource}`; see the webhook's rules"
    )]
    Elsewhere {
        /// What is done.
        operation: Operation,
        /// To what.
        resource: String,
    },
    /// The patch cannot be said.
    #[error(transparent)]
    Patch(#[from] SerializePatchError),
}

/// The answer to a review.
pub(super) fn answer(
    body: &[u8],
    template: &Template,
) -> Result<AdmissionReview<DynamicObject>, ReviewError> {
    let review: AdmissionReview<Pod> = serde_json::from_slice(body)?;
    if review.types.api_version != META_API_VERSION_V1 {
        return Err(ReviewError::Version(review.types.api_version));
    }
    let request: AdmissionRequest<Pod> = review.try_into().map_err(|_| ReviewError::Empty)?;
    let is_of_a_pod =
        request.resource.resource == "pods" && request.sub_resource.as_deref().unwrap_or_default().is_empty();
    if request.operation != Operation::Create || !is_of_a_pod {
        return Err(ReviewError::Elsewhere {
            operation: request.operation,
            resource: request.resource.resource,
        });
    }
    let pod = request.object.as_ref().ok_or(ReviewError::Empty)?;
    let spec = pod.spec.as_ref().ok_or(ReviewError::Empty)?;
    let response = AdmissionResponse::from(&request);
    Ok(match inject(&pod.metadata, spec, template) {
        Ok(injection) => allow(response, injection)?,
        Err(refusal) => {
            let message = refusal.to_string();
            // Pods of a Deployment have no name yet.
            let name = pod.metadata.name.as_ref().or(pod.metadata.generate_name.as_ref());
            tracing::warn!(namespace = request.namespace, name, message, "a pod is refused");
            let mut response = response.deny(&message);
            response.result = Status::failure(&message, "Invalid").with_code(UNPROCESSABLE);
            response
        }
    }
    .into_review())
}

fn allow(
    response: AdmissionResponse,
    injection: Injection,
) -> Result<AdmissionResponse, SerializePatchError> {
    let Injection { patch, warnings } = injection;
    let mut response = if patch.0.is_empty() { response } else { response.with_patch(patch)? };
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    Ok(response)
}
