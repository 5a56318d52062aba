//! Registered licenses, and terms that were accepted: recorded once, then only read.
//!
//! Refuses to replace what is recorded: the first one stays.

use deadpool_postgres::tokio_postgres::Row;

use super::columns::{micros, moment, stored, text};
use super::connector::Session;
use super::faults::Fault;
use super::question::Question;
use crate::store::{Acceptance, LicenseFilter, Registered, Registration};

const REGISTER: &str = "
    WITH created AS (
        INSERT INTO tollgate_license
            (id, issuer, assignee, kid, not_before, expires, token, registered_at, registered_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    ), recorded AS (
        UPDATE tollgate_meta SET records = records + 1 WHERE EXISTS (SELECT 1 FROM created) RETURNING id
    )
    SELECT pg_notify('tollgate', '') FROM recorded";

const LICENSE: &str = "SELECT * FROM tollgate_license WHERE id = $1";

const LICENSES: &str = "
    SELECT * FROM tollgate_license
    WHERE id > $1 AND ($2::text IS NULL OR issuer = $2) AND ($3::text IS NULL OR assignee = $3)
        AND ($4::bigint IS NULL OR expires < $4)
    ORDER BY id LIMIT $5";

const ACCEPT: &str = "
    WITH created AS (
        INSERT INTO tollgate_acceptance (issuer, license, terms_hash, accepted_by, accepted_at)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (issuer, license, terms_hash) DO NOTHING
        RETURNING issuer
    ), recorded AS (
        UPDATE tollgate_meta SET records = records + 1 WHERE EXISTS (SELECT 1 FROM created) RETURNING id
    )
    SELECT pg_notify('tollgate', '') FROM recorded";

const ACCEPTANCE: &str =
    "SELECT * FROM tollgate_acceptance WHERE issuer = $1 AND license = $2 AND terms_hash = $3";

impl Question for Registered {
    type Answer = Registration;
    // A second try would say that the license was registered before.
    const REPEATABLE: bool = false;

    async fn ask(&self, session: &mut Session) -> Result<Registration, Fault> {
        let statement = session.prepare_cached(REGISTER).await?;
        let created = session
            .query_opt(
                &statement,
                &[
                    &stored(&self.id),
                    &stored(&self.issuer),
                    &stored(&self.assignee),
                    &stored(&self.kid),
                    &micros(self.not_before),
                    &micros(self.expires),
                    &stored(&self.token),
                    &micros(self.registered_at),
                    &stored(&self.registered_by),
                ],
            )
            .await?;
        if created.is_some() {
            return Ok(Registration::Created);
        }
        let present = LicenseOf(&self.id).ask(session).await?;
        present.map(Registration::Present).ok_or_else(|| Fault::damaged("a registered license went away"))
    }
}

/// The license of an id.
pub(super) struct LicenseOf<'a>(pub(super) &'a str);

impl Question for LicenseOf<'_> {
    type Answer = Option<Registered>;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Option<Registered>, Fault> {
        let statement = session.prepare_cached(LICENSE).await?;
        session.query_opt(&statement, &[&stored(self.0)]).await?.as_ref().map(registered).transpose()
    }
}

/// Licenses by id.
pub(super) struct Licenses<'a> {
    pub(super) filter: &'a LicenseFilter,
    pub(super) after: &'a str,
    pub(super) limit: u32,
}

impl Question for Licenses<'_> {
    type Answer = Vec<Registered>;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Vec<Registered>, Fault> {
        let LicenseFilter { issuer, assignee, expiring_before } = self.filter;
        let statement = session.prepare_cached(LICENSES).await?;
        let rows = session
            .query(
                &statement,
                &[
                    &stored(self.after),
                    &issuer.as_deref().map(stored),
                    &assignee.as_deref().map(stored),
                    &expiring_before.map(micros),
                    &i64::from(self.limit),
                ],
            )
            .await?;
        rows.iter().map(registered).collect()
    }
}

fn registered(row: &Row) -> Result<Registered, Fault> {
    Ok(Registered {
        id: text(row, "id")?,
        issuer: text(row, "issuer")?,
        assignee: text(row, "assignee")?,
        kid: text(row, "kid")?,
        not_before: moment(row, "not_before")?,
        expires: moment(row, "expires")?,
        token: text(row, "token")?,
        registered_at: moment(row, "registered_at")?,
        registered_by: text(row, "registered_by")?,
    })
}

impl Question for Acceptance {
    type Answer = bool;
    // A second try would say that it was recorded before.
    const REPEATABLE: bool = false;

    async fn ask(&self, session: &mut Session) -> Result<bool, Fault> {
        let statement = session.prepare_cached(ACCEPT).await?;
        let created = session
            .query_opt(
                &statement,
                &[
                    &stored(&self.issuer),
                    &stored(&self.license),
                    &stored(&self.terms_hash),
                    &stored(&self.accepted_by),
                    &micros(self.at),
                ],
            )
            .await?;
        Ok(created.is_some())
    }
}

/// The acceptance of these terms for this license.
pub(super) struct AcceptanceOf<'a> {
    pub(super) issuer: &'a str,
    pub(super) license: &'a str,
    pub(super) terms_hash: &'a str,
}

impl Question for AcceptanceOf<'_> {
    type Answer = Option<Acceptance>;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Option<Acceptance>, Fault> {
        let statement = session.prepare_cached(ACCEPTANCE).await?;
        let key = [self.issuer, self.license, self.terms_hash].map(stored);
        let [issuer, license, terms_hash] = &key;
        let row = session.query_opt(&statement, &[issuer, license, terms_hash]).await?;
        row.map(|row| {
            Ok(Acceptance {
                issuer: text(&row, "issuer")?,
                license: text(&row, "license")?,
                terms_hash: text(&row, "terms_hash")?,
                accepted_by: text(&row, "accepted_by")?,
                at: moment(&row, "accepted_at")?,
            })
        })
        .transpose()
    }
}
