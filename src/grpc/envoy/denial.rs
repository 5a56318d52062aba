//! What a denial is to HTTP and to gRPC: one table of every reason code.
//!
//! `docs/reasons.md` is rendered from it. Refuses a status below 400: Envoy would pass it on as a success.

use http::StatusCode;
use tonic::Code as GrpcCode;

use crate::domain::Code;

/// A kind of denial. Of several, the one that comes first here is told: what only another request mends comes before
/// what another license mends, that before what the license's owner or the operator mends, and last what time mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// The request could not be read, or is incomplete.
    Malformed,
    /// The license is absent or no good: another one would do.
    Unlicensed,
    /// The license, or a policy, does not allow this use.
    Forbidden,
    /// The gate does not know enough to allow it.
    Unready,
    /// A quota is used up.
    Exhausted,
}

impl Denial {
    /// The kind of one reason.
    pub fn of(code: Code) -> Self {
        match code {
            Code::ContextInvalid => Self::Malformed,
            Code::LicenseMissing
            | Code::LicenseMalformed
            | Code::LicenseUnknown
            | Code::AlgorithmNotAllowed
            | Code::KeyUnknown
            | Code::KeyRetired
            | Code::SignatureInvalid
            | Code::IssuerUntrusted
            | Code::TermUnsupported
            | Code::AudienceMismatch
            | Code::NotYetValid
            | Code::Expired
            | Code::Revoked
            | Code::HolderMismatch => Self::Unlicensed,
            Code::Suspended
            | Code::TermsNotAccepted
            | Code::AssigneeMismatch
            | Code::UserNotLicensed
            | Code::RoleNotLicensed
            | Code::ProjectNotLicensed
            | Code::DatasetNotLicensed
            | Code::ActionNotLicensed
            | Code::PurposeNotLicensed
            | Code::RegionNotLicensed
            | Code::EnvironmentNotLicensed
            | Code::CombinationProhibited
            | Code::ReidentificationProhibited
            | Code::RedistributionProhibited
            | Code::AnonymizationInsufficient
            | Code::ObligationUnsupported
            | Code::PolicyForbids
            | Code::NoPolicyPermits => Self::Forbidden,
            Code::StateStale
            | Code::ClockSuspect
            | Code::PolicyError
            | Code::StateUnavailable
            | Code::AuditUnavailable => Self::Unready,
            Code::QuotaExceeded => Self::Exhausted,
        }
    }

    /// The kind of a denial for these reasons.
    pub fn of_all(codes: impl IntoIterator<Item = Code>) -> Self {
        codes.into_iter().map(Self::of).min().unwrap_or(Self::Forbidden)
    }

    /// The status of an HTTP response.
    pub fn http(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unlicensed => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unready => StatusCode::SERVICE_UNAVAILABLE,
            Self::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The status of a gRPC response.
    pub fn grpc(self) -> GrpcCode {
        match self {
            Self::Malformed => GrpcCode::InvalidArgument,
            Self::Unlicensed => GrpcCode::Unauthenticated,
            Self::Forbidden => GrpcCode::PermissionDenied,
            Self::Unready => GrpcCode::Unavailable,
            Self::Exhausted => GrpcCode::ResourceExhausted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_mends_only_what_nothing_else_must() {
        let of = |codes: &[Code]| Denial::of_all(codes.iter().copied()).http().as_u16();
        assert_eq!(of(&[Code::QuotaExceeded]), 429);
        assert_eq!(of(&[Code::QuotaExceeded, Code::StateStale]), 503);
        assert_eq!(of(&[Code::StateStale, Code::PurposeNotLicensed]), 403);
        assert_eq!(of(&[Code::PurposeNotLicensed, Code::Expired]), 401);
        assert_eq!(of(&[Code::LicenseMissing, Code::ContextInvalid]), 400);
        assert_eq!(of(&[]), 403);
    }
}
