//! Reasons of a denial, and the closed list of their codes.
//!
//! `docs/reasons.md` is rendered from this list. Refuses codes that are not in it: a
//! policy that names another does not load.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One thing that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What kind of thing.
    pub code: Code,
    /// The policy that objected; empty where the objection is not a policy's.
    pub policy_id: String,
    /// Words for the person who asked.
    pub reason_user: String,
    /// Words for the administrator, with the values that were compared.
    pub reason_admin: String,
    /// What would have to hold for this reason to vanish.
    pub would_pass_if: String,
    /// The law that the policy puts into force, such as an article; none where it is not a law that objects.
    pub cite: Option<Arc<str>>,
}

impl Reason {
    /// A reason that is not a policy's, in the code's own words.
    pub fn new(code: Code, admin: impl Into<String>) -> Self {
        Self {
            code,
            policy_id: String::new(),
            reason_user: code.meaning().to_owned(),
            reason_admin: admin.into(),
            would_pass_if: code.remedy().to_owned(),
            cite: None,
        }
    }

    /// The same, with its own words for what would pass.
    #[must_use]
    pub fn would_pass_if(mut self, remedy: impl Into<String>) -> Self {
        self.would_pass_if = remedy.into();
        self
    }
}

/// Declares the codes once: variant, name, meaning, remedy.
macro_rules! codes {
    ($($variant:ident $name:literal $meaning:literal $remedy:literal)*) => {
        /// Why a use was denied. `docs/reasons.md` explains each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is documented by its meaning, rendered into docs/reasons.md")]
        pub enum Code { $($variant),* }

        impl Code {
            /// Every code, in the order in which a request meets them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code's name: a contract.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it means, in words for the person who asked.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }

            /// What would make it pass.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),* }
            }
        }
    };
}

codes! {
    ContextInvalid "CONTEXT_INVALID"
        "The request is incomplete or malformed."
        "the field named in the administrator's words is filled in as it says"
    LicenseMissing "LICENSE_MISSING"
        "No license was presented."
        "the request carries a license token or the id of a registered license"
    LicenseMalformed "LICENSE_MALFORMED"
        "The license is not a well-formed license token."
        "the token is a compact JWS of type `license+jwt`, at most 16 KiB, exactly as it was issued"
    LicenseUnknown "LICENSE_UNKNOWN"
        "The license is not registered at this gate."
        "the request carries the license's token, or the id of a license registered at this gate"
    AlgorithmNotAllowed "ALGORITHM_NOT_ALLOWED"
        "The license is signed in a way that is not accepted."
        "the license is signed with Ed25519 (`alg` is `EdDSA`)"
    KeyUnknown "KEY_UNKNOWN"
        "The license is signed with a key that is not known here."
        "the issuer's key set at the gate holds the key that the license names"
    KeyRetired "KEY_RETIRED"
        "The license is signed with a key that is no longer accepted."
        "the license is issued again under a key that is in force"
    SignatureInvalid "SIGNATURE_INVALID"
        "The license's signature is not valid."
        "the token is exactly as its issuer signed it"
    IssuerUntrusted "ISSUER_UNTRUSTED"
        "The license is not signed by the issuer that it names."
        "the license is signed with a key of the issuer that it names"
    TermUnsupported "TERM_UNSUPPORTED"
        "The license has a term that this gate does not enforce."
        "the license has only terms that this gate enforces"
    AudienceMismatch "AUDIENCE_MISMATCH"
        "The license is not meant for this gate."
        "the license's `aud` names this gate, or names none"
    NotYetValid "NOT_YET_VALID"
        "The license is not valid yet."
        "the license's validity has begun"
    Expired "EXPIRED"
        "The license has expired."
        "the license is renewed"
    Revoked "REVOKED"
        "The license was revoked."
        "the assignee gets another license; nothing lifts a revocation"
    Suspended "SUSPENDED"
        "The license is suspended."
        "whoever suspended it reinstates it"
    StateStale "STATE_STALE"
        "The gate does not know whether the license was revoked, so the use is denied."
        "the gate can read its state again (`state.max_staleness`)"
    ClockSuspect "CLOCK_SUSPECT"
        "The gate's clock cannot be trusted, so the use is denied."
        "the clock of the gate agrees with that of its state (`state.max_clock_skew`)"
    TermsNotAccepted "TERMS_NOT_ACCEPTED"
        "Nobody has accepted the terms that the license asks for."
        "a person of the assignee accepts the terms, and that is recorded (`AcceptTerms`)"
    HolderMismatch "HOLDER_MISMATCH"
        "The license is bound to a holder who did not present it."
        "the license is presented by the holder that it is bound to, and the request carries the evidence"
    AssigneeMismatch "ASSIGNEE_MISMATCH"
        "The license was granted to another organization."
        "the subject acts for the organization that the license names"
    UserNotLicensed "USER_NOT_LICENSED"
        "The license does not name this user."
        "the user is one of those whom the license names"
    RoleNotLicensed "ROLE_NOT_LICENSED"
        "The license does not name any of the user's roles."
        "the user has one of the roles that the license names"
    ProjectNotLicensed "PROJECT_NOT_LICENSED"
        "The license does not name this project."
        "the use is for one of the projects that the license names"
    DatasetNotLicensed "DATASET_NOT_LICENSED"
        "The license does not cover this dataset."
        "the dataset is one of those that the license covers, or below one"
    ActionNotLicensed "ACTION_NOT_LICENSED"
        "The license does not allow this action."
        "the action is one of those that the license allows"
    PurposeNotLicensed "PURPOSE_NOT_LICENSED"
        "The license does not cover this purpose."
        "the purpose is one of those that the license covers, or narrower"
    RegionNotLicensed "REGION_NOT_LICENSED"
        "The license does not allow processing in this region."
        "the data is processed in a region that the license names"
    EnvironmentNotLicensed "ENVIRONMENT_NOT_LICENSED"
        "The license does not allow processing in this environment."
        "the data is processed in an environment that the license names"
    CombinationProhibited "COMBINATION_PROHIBITED"
        "The license prohibits combining the data with other data."
        "the data is not combined with the data that the license prohibits"
    ReidentificationProhibited "REIDENTIFICATION_PROHIBITED"
        "The license prohibits linking that could identify persons."
        "the data is not linked with data from outside"
    RedistributionProhibited "REDISTRIBUTION_PROHIBITED"
        "The license prohibits passing the data on."
        "the data is neither shared nor exported"
    AnonymizationInsufficient "ANONYMIZATION_INSUFFICIENT"
        "The dataset's release does not meet the anonymization that the license requires."
        "the catalog attests a release that meets the license's standard"
    ObligationUnsupported "OBLIGATION_UNSUPPORTED"
        "The use comes with a duty that the enforcement point cannot fulfil."
        "the enforcement point supports every type of obligation that comes with the license"
    PolicyForbids "POLICY_FORBIDS"
        "A policy of the gate's operator forbids this use."
        "the policy does not apply"
    NoPolicyPermits "NO_POLICY_PERMITS"
        "No policy permits this use."
        "a policy of the gate permits it"
    PolicyError "POLICY_ERROR"
        "A policy could not be evaluated, so the use is denied."
        "the policy evaluates without an error"
    QuotaExceeded "QUOTA_EXCEEDED"
        "A quota of the license does not leave that much."
        "less is used, or the quota's next window has begun"
    StateUnavailable "STATE_UNAVAILABLE"
        "The gate cannot reach what it must know to allow the use."
        "the gate can reach its state again"
    AuditUnavailable "AUDIT_UNAVAILABLE"
        "The decision could not be recorded, so the use is denied."
        "the gate can write its decision log"
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not that of a reason code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a reason code; docs/reasons.md lists them")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == name)
            .ok_or_else(|| UnknownCode(name.to_owned()))
    }
}
