//! Usage, read page by page and added up over windows: a large range is never held at once.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{AdminError, Administration, Operator};
use crate::domain::terms::QuotaWindow;
use crate::domain::time::Timestamp;
use crate::quota::window::window;
use crate::store::{StateStore, UsageFilter, UsageKey, UsageRow};

/// How many rows are read at once.
const PAGE: u32 = 1_000;

/// Over which time usage is added up, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageWindow {
    /// The whole of the range.
    #[default]
    Total,
    /// Each hour.
    Hour,
    /// Each day.
    Day,
    /// Each month.
    Month,
}

/// Reads rows, added up.
pub struct UsageReader {
    store: Arc<dyn StateStore>,
    filter: UsageFilter,
    window: UsageWindow,
    /// The last row that was read.
    after: Option<UsageKey>,
    /// The row that is being added up.
    open: Option<UsageRow>,
    ended: bool,
}

impl Administration {
    /// Usage, as far as the store has it.
    ///
    /// # Errors
    /// When it is not permitted.
    pub fn usage(
        &self,
        by: &Operator,
        filter: UsageFilter,
        window: UsageWindow,
    ) -> Result<UsageReader, AdminError> {
        self.judge_all(by, "GetUsage", filter.issuer.as_deref())?;
        let store = Arc::clone(&self.store);
        Ok(UsageReader { store, filter, window, after: None, open: None, ended: false })
    }
}

impl UsageReader {
    /// The next rows; none at the end.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next(&mut self) -> Result<Vec<UsageRow>, AdminError> {
        let mut rows = Vec::new();
        while rows.is_empty() && !self.ended {
            let page = self.store.usage(&self.filter, self.after.as_ref(), PAGE).await?;
            match page.last() {
                Some(last) => self.after = Some(last.key.clone()),
                None => self.ended = true,
            }
            for row in page {
                rows.extend(self.add(row));
            }
        }
        if self.ended {
            rows.extend(self.open.take());
        }
        // What was taken back entirely was not used.
        rows.retain(|row| row.amount.is_positive());
        if rows.is_empty() && !self.ended { Box::pin(self.next()).await } else { Ok(rows) }
    }

    /// Adds a row to the one before, or begins another, and returns the one that is complete.
    fn add(&mut self, mut row: UsageRow) -> Option<UsageRow> {
        row.key.hour = self.begins(&row.key);
        match &mut self.open {
            Some(open) if open.key == row.key => {
                open.amount += row.amount;
                None
            }
            open => open.replace(row),
        }
    }

    /// The beginning of the window that an hour is in.
    fn begins(&self, key: &UsageKey) -> Timestamp {
        let start = |kind| window(kind, &TimeZone::UTC, key.hour).map_or(key.hour, |window| window.start);
        match self.window {
            UsageWindow::Hour => key.hour,
            UsageWindow::Day => start(QuotaWindow::Day),
            UsageWindow::Month => start(QuotaWindow::Month),
            UsageWindow::Total => {
                let same = |open: &&UsageRow| UsageKey { hour: key.hour, ..open.key.clone() } == *key;
                self.open.as_ref().filter(same).map_or(key.hour, |open| open.key.hour)
            }
        }
    }
}

impl std::fmt::Debug for UsageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsageReader").field("filter", &self.filter).finish_non_exhaustive()
    }
}
