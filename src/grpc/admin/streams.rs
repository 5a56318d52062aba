//! What `LicenseService` streams: rows of usage, and changes as they come.
//!
//! Refuses to run ahead of a caller who reads slowly: what waits has a bound.

use tokio::sync::mpsc;
use tonic::Status;

use super::super::convert::timestamp;
use super::super::status;
use crate::administration::{Changes, UsageReader};
use crate::proto::v1 as wire;
use crate::store::hub::messages::standing as convert;

pub(super) async fn send_usage(
    mut reader: UsageReader,
    rows: mpsc::Sender<Result<wire::GetUsageResponse, Status>>,
) {
    loop {
        let page = match reader.next().await {
            Ok(page) if page.is_empty() => return,
            Ok(page) => page,
            Err(error) => {
                let _ = rows.send(Err(status::not_done(error))).await;
                return;
            }
        };
        for row in page {
            let answer = wire::GetUsageResponse {
                issuer: row.key.issuer,
                license_id: row.key.license,
                assignee: row.key.assignee,
                user: row.key.user,
                project: row.key.project,
                metric: row.key.metric,
                window_start: timestamp(row.key.hour),
                amount: row.amount.to_f64(),
            };
            if rows.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }
}

pub(super) async fn send_changes(
    watch: &mut Changes,
    changes: &mpsc::Sender<Result<wire::WatchLicensesResponse, Status>>,
) {
    loop {
        let news = match watch.next().await {
            Ok(news) => news,
            Err(error) => {
                let _ = changes.send(Err(status::not_done(error))).await;
                return;
            }
        };
        for standing in news {
            let answer = wire::WatchLicensesResponse { standing: Some(convert(&standing)) };
            if changes.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }
}
