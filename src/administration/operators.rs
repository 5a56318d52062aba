//! Who administers the gate: whom it knows by a bearer token, a client certificate or a Unix socket.
//!
//! Tokens are compared by their hashes, in constant time. Refuses to say of a token more than that it is
//! not known, and a file of tokens in which anything is wrong: those in force stay.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{self, CertificateOperator, Scope};
use crate::document::{Document, Problem, Problems};

/// The shortest token, in characters.
const SHORTEST: usize = 32;

/// Somebody who administers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The name in records and policies.
    pub name: String,
    /// What they may do.
    pub scope: Scope,
}

/// An entry of the file of tokens.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Who shows it.
    #[schemars(length(min = 1))]
    name: String,
    /// What it is good for.
    scope: Scope,
    /// The token itself.
    token: String,
}

struct Token {
    hash: [u8; 32],
    operator: Operator,
}

/// Everybody whom the gate knows.
pub struct Operators {
    file: Option<PathBuf>,
    tokens: ArcSwap<Vec<Token>>,
    certificates: Vec<CertificateOperator>,
}

impl Operators {
    /// Reads who is known.
    ///
    /// # Errors
    /// Everything that is wrong with the file of tokens.
    pub fn open(config: &config::Administration) -> Result<Self, Problems> {
        let tokens = config.tokens.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(Self {
            file: config.tokens.clone(),
            tokens: ArcSwap::from_pointee(tokens),
            certificates: config.operators.clone(),
        })
    }

    /// The file of tokens.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// How many tokens are known.
    pub fn tokens(&self) -> usize {
        self.tokens.load().len()
    }

    /// Reads the file of tokens again; says whether anything changed.
    ///
    /// # Errors
    /// Everything that is wrong with it; then those in force stay.
    pub fn reload(&self) -> Result<bool, Problems> {
        let Some(file) = &self.file else { return Ok(false) };
        let tokens = read(file)?;
        let told = |tokens: &[Token]| -> Vec<_> {
            tokens.iter().map(|token| (token.hash, token.operator.clone())).collect()
        };
        let changed = told(&tokens) != told(&self.tokens.load());
        self.tokens.store(tokens.into());
        Ok(changed)
    }

    /// Who shows this token.
    pub fn with_token(&self, token: &str) -> Option<Operator> {
        let shown: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        // To the end, whoever it is.
        for known in self.tokens.load().iter() {
            if bool::from(known.hash.ct_eq(&shown)) {
                found = Some(known.operator.clone());
            }
        }
        found
    }

    /// Who shows a certificate of these names.
    pub fn with_certificate(&self, names: &[String]) -> Option<Operator> {
        let known = self.certificates.iter().find(|known| names.contains(&known.subject))?;
        Some(Operator { name: known.subject.clone(), scope: known.scope })
    }

    /// Who comes over the Unix socket.
    pub fn over_unix(&self, uid: u32) -> Operator {
        Operator { name: format!("unix:{uid}"), scope: Scope::Operate }
    }
}

impl std::fmt::Debug for Operators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operators").field("file", &self.file).finish_non_exhaustive()
    }
}

fn read(file: &Path) -> Result<Vec<Token>, Problems> {
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| Problem::new(&origin, error.to_string()))?;
    let document = Document::parse(&origin, &text)?;
    let entries: Vec<Entry> = document.decode()?;
    let mut problems = Vec::new();
    let (mut names, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    for (position, entry) in entries.iter().enumerate() {
        let pointer = |member: &str| format!("/{position}/{member}");
        if !names.insert(&entry.name) {
            problems.push(
                document.problem(&pointer("name"), "it is there twice; each token has a name of its own"),
            );
        }
        if entry.token.chars().count() < SHORTEST || entry.token.chars().any(char::is_whitespace) {
            let message =
                "it needs at least 32 characters and no white space, such as `openssl rand -hex 32` makes";
            problems.push(document.problem(&pointer("token"), message));
        }
        if !tokens.insert(&entry.token) {
            problems.push(document.problem(&pointer("token"), "another name has the same"));
        }
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let token = |entry: Entry| Token {
        hash: Sha256::digest(entry.token).into(),
        operator: Operator { name: entry.name, scope: entry.scope },
    };
    Ok(entries.into_iter().map(token).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "reader-0123456789-0123456789-0123456789";

    fn operators(text: &str) -> Result<Operators, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.yaml");
        std::fs::write(&file, text).unwrap();
        let config = config::Administration { tokens: Some(file), ..config::Administration::default() };
        Operators::open(&config).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_token_tells_who_comes() {
        let known = operators(&format!("- {{name: dashboard, scope: read, token: {READER}}}\n")).unwrap();
        let operator = Operator { name: "dashboard".to_owned(), scope: Scope::Read };
        assert_eq!(known.with_token(READER), Some(operator));
        for token in ["", "reader", &READER.to_uppercase(), &format!("{READER} ")] {
            assert_eq!(known.with_token(token), None, "{token:?}");
        }
    }

    #[test]
    fn a_bad_file_is_refused_and_says_no_token() {
        for (text, words) in [
            ("- {name: a, scope: read, token: too-short}\n".to_owned(), "at least 32 characters"),
            (format!("- {{name: a, scope: all, token: {READER}}}\n"), "scope"),
            (
                format!(
                    "- {{name: a, scope: read, token: {READER}}}\n- {{name: b, scope: read, token: {READER}}}\n"
                ),
                "another name has the same",
            ),
            ("tokens: []\n".to_owned(), "list"),
        ] {
            let problems = operators(&text).unwrap_err();
            assert!(problems.contains(words), "{problems}");
            assert!(!problems.contains(READER) && !problems.contains("too-short"), "{problems}");
        }
    }
}
