//! Policies: Cedar, always with a schema, compiled into an immutable snapshot that is swapped whole.
//!
//! Refuses a set in which anything is wrong: the one in force stays. Only this module and
//! those below it know Cedar.

pub mod administration;
pub mod assemble;
pub mod catalog;
pub mod compose;
mod depth;
pub mod entities;
pub mod evaluate;
pub mod explain;
pub mod index;
pub mod load;
mod residual;
mod shape;
pub mod validate;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use cedar_policy::{Effect, Entities, PolicyId, PolicySet, Schema};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::config;
use crate::document::{Problem, Problems};
use crate::domain::{Action, CheckRequest};

pub use entities::{CedarLicense, LicenseFacts};
pub use evaluate::{Answer, Licensed};
pub use load::Sources;

/// The stack of the thread that compiles policies, in bytes; memory is used only as deep as it goes.
const COMPILER_STACK: usize = 256 << 20;

/// Everything that decides, compiled: policies, taxonomies and catalog of one moment.
pub struct Snapshot {
    /// A name for exactly these texts.
    revision: Arc<str>,
    schema: Schema,
    types: entities::Types,
    /// The conjunction of `terms`.
    composed: residual::Residuals,
    /// The `forbid` policies that look at every request.
    terms: PolicySet,
    /// The `permit` policies that grant every request that nothing forbids.
    always_granting: Vec<PolicyId>,
    /// All others.
    index: index::Index,
    rules: HashMap<PolicyId, validate::Rule>,
    actions: HashMap<Action, Arc<entities::Node>>,
    administration: administration::Rules,
    shapes: shape::Shapes,
    purposes: catalog::Nodes,
    regions: catalog::Nodes,
    catalog: catalog::Nodes,
    /// The paths of the catalog, in their order.
    datasets: Vec<String>,
    /// Answers to questions asked before. They die with the snapshot.
    answers: Cache<[u8; 32], Answer>,
}

impl Snapshot {
    /// Compiles texts, with `answer_cache` bytes for remembered answers.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its file and line where known.
    pub fn compile(sources: &Sources, answer_cache: u64) -> Result<Self, Problems> {
        // Cedar parses and validates by recursion: a policy may be deep, and must not end the gate.
        std::thread::scope(|scope| {
            let roomy = std::thread::Builder::new().name("policies".to_owned()).stack_size(COMPILER_STACK);
            let compiler = roomy.spawn_scoped(scope, || Self::compile_here(sources, answer_cache));
            let failed = |what: &str| Problems::from(Problem::new("policies", what));
            compiler
                .map_err(|error| failed(&format!("no thread to compile policies on: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(failed("compiling the policies ended in a fault of the compiler")))
        })
    }

    fn compile_here(sources: &Sources, answer_cache: u64) -> Result<Self, Problems> {
        let internal =
            |error: &dyn std::fmt::Display| Problems::from(Problem::new("policies", error.to_string()));
        let types = entities::Types::new().map_err(|error| internal(&error))?;
        let schema = validate::schema(sources)?;
        let rules = validate::rules(&sources.policies, &schema)?;
        let terms: Vec<_> = rules.iter().map(|rule| &rule.policy).filter(|p| compose::is_term(p)).collect();
        let composed = compose::conjunction(terms.iter().copied())
            .and_then(|condition| residual::Residuals::new(condition, terms.len()))
            .map_err(|error| internal(&error))?;
        let (always, others): (Vec<_>, Vec<_>) =
            rules.iter().filter(|rule| !compose::is_term(&rule.policy)).partition(|rule| grants_always(rule));
        let regions = catalog::taxonomy(&sources.regions, "Tollgate::Region", &schema)?;
        let catalog = catalog::catalog(&sources.catalog, &types, &schema, &regions)?;
        let mut datasets: Vec<String> = catalog.keys().cloned().collect();
        datasets.sort_unstable();
        let index = index::Index::build(others.iter().map(|rule| &rule.policy));
        let set = |policies: Vec<cedar_policy::Policy>| {
            PolicySet::from_policies(policies).map_err(|error| internal(&error))
        };
        Ok(Self {
            revision: sources.revision().into(),
            composed,
            terms: set(terms.into_iter().cloned().collect())?,
            always_granting: always.iter().map(|rule| rule.policy.id().clone()).collect(),
            index: index.map_err(|error| internal(&error))?,
            actions: actions(&schema, &types).map_err(|error| internal(&error))?,
            purposes: catalog::taxonomy(&sources.purposes, "Tollgate::Purpose", &schema)?,
            catalog,
            datasets,
            administration: administration::Rules::compile(
                &sources.administration_schema,
                &sources.administration,
            )?,
            regions,
            rules: rules.into_iter().map(|rule| (rule.policy.id().clone(), rule)).collect(),
            answers: Cache::bounded(answer_cache, |_, answer| weigh(answer)),
            shapes: shape::Shapes::new(sources.has_built_in_schema()),
            types,
            schema,
        })
    }

    /// A name for exactly these policies and this catalog.
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// The ids of the policies.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.rules.values().map(validate::Rule::id)
    }

    /// The paths of the datasets in the catalog, in their order.
    pub fn datasets(&self) -> &[String] {
        &self.datasets
    }

    /// Whether an act of administration is permitted.
    ///
    /// # Errors
    /// Why it is not.
    pub fn may_administer(&self, act: administration::Act<'_>) -> Result<(), administration::Forbidden> {
        self.administration.judge(act)
    }

    /// The bytes of the remembered answers.
    pub fn answer_bytes(&self) -> u64 {
        self.answers.bytes()
    }

    /// What the policies say, remembered or evaluated, and whether it was remembered.
    ///
    /// Policies see neither the time nor what happened before, so their answer to the same
    /// question is the same for as long as the snapshot lives.
    pub fn answer(&self, license: Licensed<'_>, request: &CheckRequest) -> (Arc<Answer>, bool) {
        if self.answers.is_off() {
            return (Arc::new(self.evaluate(license, request)), false);
        }
        let key = question(license, request);
        if let Some(answer) = self.answers.get(&key) {
            return (answer, true);
        }
        let answer = Arc::new(self.evaluate(license, request));
        self.answers.put(key, answer.clone());
        (answer, false)
    }

    /// Builds the policies' view of a license.
    ///
    /// # Errors
    /// Never for terms that were accepted; an error denies.
    pub fn license(&self, facts: LicenseFacts<'_>) -> Result<CedarLicense, entities::EntityError> {
        entities::license(facts, &self.types)
    }
}

fn grants_always(rule: &validate::Rule) -> bool {
    rule.policy.effect() == Effect::Permit
        && compose::looks_at_everything(&rule.policy)
        && !rule.policy.has_non_scope_constraint()
        && rule.obligation.is_none()
}

fn actions(
    schema: &Schema,
    types: &entities::Types,
) -> Result<HashMap<Action, Arc<entities::Node>>, Box<cedar_policy::entities_errors::EntitiesError>> {
    let groups: Entities = schema.action_entities().map_err(Box::new)?;
    let node = |action| {
        let uid = types.action(action);
        let above = groups.ancestors(&uid).into_iter().flatten().cloned().collect();
        (action, Arc::new(entities::Node::plain(uid, above)))
    };
    Ok(Action::ALL.into_iter().map(node).collect())
}

fn weigh(answer: &Answer) -> usize {
    let reasons = answer.reasons.iter().map(|reason| {
        200 + reason.policy_id.len()
            + reason.reason_user.len()
            + reason.reason_admin.len()
            + reason.would_pass_if.len()
    });
    let granting = answer.granting.iter().map(|id| 24 + id.len());
    100 + reasons.sum::<usize>() + granting.sum::<usize>() + answer.obligations.len() * 400
}

/// The key of a question: everything that an answer can depend on, hashed so that no two
/// questions share one.
pub fn question(license: Licensed<'_>, request: &CheckRequest) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(license.license.digest);
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    let subject = &request.subject;
    for text in [
        &subject.id,
        &subject.organization,
        &request.action,
        &request.resource.id,
        &request.resource.kind,
        &request.purpose,
        &request.region,
        &request.project,
        &request.environment,
    ] {
        field(text);
    }
    for list in [&subject.roles, &request.combined_with] {
        field(&list.len().to_string());
        list.iter().for_each(|text| field(text));
    }
    for attributes in [&request.context, &request.resource.properties] {
        // A map of JSON values is always written; nothing is written for the common empty one.
        field(&if attributes.is_empty() { String::new() } else { serde_json::json!(attributes).to_string() });
    }
    hash.update([u8::from(request.combined_with_external)]);
    hash.finalize().into()
}

/// The snapshot in force, and how to replace it.
pub struct Policies {
    directory: Option<PathBuf>,
    catalog: Option<PathBuf>,
    answer_cache: u64,
    current: ArcSwap<Snapshot>,
    /// One reload at a time: a slow one must not overwrite the result of a later one.
    reloading: std::sync::Mutex<()>,
}

impl Policies {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(config: &config::Policies) -> Result<Self, Problems> {
        let (directory, catalog) = (config.directory.clone(), config.catalog.clone());
        let sources = Sources::read(directory.as_deref(), catalog.as_deref())?;
        Ok(Self { directory, catalog, ..Self::of(&sources, config.answer_cache)? })
    }

    /// Compiles texts that are at hand; a reload reads the built-in ones.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn of(sources: &Sources, answer_cache: config::ByteSize) -> Result<Self, Problems> {
        let answer_cache = answer_cache.bytes();
        let current = ArcSwap::from_pointee(Snapshot::compile(sources, answer_cache)?);
        let reloading = std::sync::Mutex::new(());
        Ok(Self { directory: None, catalog: None, answer_cache, current, reloading })
    }

    /// The snapshot in force.
    pub fn current(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The files and folders that are worth watching.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.directory.iter().chain(&self.catalog).map(PathBuf::as_path)
    }

    /// Reads everything again; on success it is in force, otherwise nothing changes. Tells
    /// whether there was anything new.
    ///
    /// # Errors
    /// Everything that is wrong with the new set.
    pub fn reload(&self) -> Result<bool, Problems> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sources = Sources::read(self.directory.as_deref(), self.catalog.as_deref())?;
        if sources.revision() == **self.current.load().revision() {
            return Ok(false);
        }
        self.current.store(Arc::new(Snapshot::compile(&sources, self.answer_cache)?));
        Ok(true)
    }
}
