//! The tables, made and changed by numbered steps.
//!
//! Refuses to touch tables of a newer version, and to let two gates make them at once.

use deadpool_postgres::tokio_postgres::{Error, GenericClient};

use super::connector::Session;
use super::faults::words;
use crate::store::StoreError;

/// The steps; the version of the tables is how many were taken.
const STEPS: [&str; 1] = [include_str!("migrations/0001_state.sql")];

/// The lock of whoever changes the tables: the letters of `tollgate`.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8389759083441943653)";

/// Where the steps that were taken are noted. Whether it is there can only be asked in this way after a
/// wait for the lock: a session that saw no such table before goes on to see none.
const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS tollgate_schema (version int NOT NULL)";

/// How long one step may take, the wait for another gate included.
const PATIENCE: &str = "SET LOCAL statement_timeout = '60s'";

/// Takes the steps that are left, each in a transaction of its own.
pub(super) async fn migrate(session: &mut Session, database: &str) -> Result<(), StoreError> {
    let failed = |error: Error| {
        let denied = match error.code().is_some_and(|code| ["42501", "3F000"].contains(&code.code())) {
            true => {
                "; the user must own the tables, or may create them in the schema (GRANT CREATE ON SCHEMA)"
            }
            false => "",
        };
        let words = format!("cannot prepare the tables in {database}: {}{denied}", words(&error));
        match error.code().is_some_and(|code| !passes(code.code())) {
            true => StoreError::Unusable(words),
            false => StoreError::Unavailable(words),
        }
    };
    // A gate that finds everything in place neither waits, nor needs to be allowed to change it.
    let there = "SELECT to_regclass('tollgate_schema') IS NOT NULL";
    let there = session.query_one(there, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if there && is_done(version(&***session).await.map_err(failed)?, database)? {
        return Ok(());
    }
    loop {
        let transaction = session.transaction().await.map_err(failed)?;
        transaction.batch_execute(PATIENCE).await.map_err(failed)?;
        transaction.batch_execute(LOCK).await.map_err(failed)?;
        transaction.batch_execute(VERSIONS).await.map_err(failed)?;
        let version = version(&*transaction).await.map_err(failed)?;
        if is_done(version, database)? {
            return Ok(());
        }
        let step = usize::try_from(version).ok().and_then(|version| STEPS.get(version));
        let step =
            step.ok_or_else(|| StoreError::Damaged(format!("the version of the tables is {version}")))?;
        transaction.batch_execute(step).await.map_err(failed)?;
        let taken = "INSERT INTO tollgate_schema (version) VALUES ($1)";
        transaction.execute(taken, &[&(version + 1)]).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        tracing::info!(version = version + 1, "the tables of the state are prepared");
    }
}

/// The version of the tables.
async fn version(client: &impl GenericClient) -> Result<i32, Error> {
    let version = "SELECT COALESCE(max(version), 0) FROM tollgate_schema";
    client.query_one(version, &[]).await?.try_get(0)
}

fn is_done(version: i32, database: &str) -> Result<bool, StoreError> {
    let known = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
    if version > known {
        return Err(StoreError::Unusable(format!(
            "the tables in {database} are of version {version}, and this version of tollgate knows {known}; \
             use the version that made them, or a newer one"
        )));
    }
    Ok(version == known)
}

/// Whether a later try may find it otherwise: the server stops, is full, or was too slow.
fn passes(code: &str) -> bool {
    ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
}
