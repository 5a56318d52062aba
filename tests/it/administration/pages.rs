//! What does not fit one page: lists that go on, and usage that is added up over the pages of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate::domain::standing::Status;
use tollgate::proto::v1::{GetUsageRequest, License, LicenseStatus, ListLicensesRequest, UsageWindow};
use tollgate::store::redb::RedbStore;
use tollgate::store::{Registered, StateStore};

use crate::gate::{ISSUER, Site};
use crate::operators::{Admin, OVERRIDES};
use crate::store::conformance::{at_once, batch, change, key, license, target, used};

/// Every page of a list, and all of it.
async fn listed(admin: &mut Admin, request: &ListLicensesRequest) -> (Vec<usize>, Vec<License>) {
    let (mut sizes, mut all, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListLicensesRequest { page_token, ..request.clone() };
        let page = admin.0.list_licenses(request).await.unwrap().into_inner();
        sizes.push(page.licenses.len());
        all.extend(page.licenses);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (sizes, all);
        }
    }
}

fn id(number: usize) -> String {
    format!("license-{number:05}")
}

#[tokio::test]
async fn lists_go_on_where_the_page_before_ended() {
    let site = Site::new();
    let store = Arc::new(RedbStore::open(&site.path("state.redb")).unwrap());
    // More than are read for one answer with a filter.
    let count = 12_000;
    at_once(count.try_into().unwrap(), |number| {
        let store = Arc::clone(&store);
        let id = id(usize::try_from(number).unwrap());
        async move {
            let registered = Registered { issuer: ISSUER.to_owned(), ..license(&id) };
            store.register(&registered).await.unwrap();
        }
    })
    .await;
    for number in [3, 11_000, 11_999] {
        let mut of = target(&id(number));
        of.issuer = ISSUER.to_owned();
        store.change(&change(of, Status::Suspended)).await.unwrap();
    }
    store.close().await;
    drop(store);
    let gate = site.start(OVERRIDES);
    let mut admin = Admin::of(&gate).await;
    let ids = |licenses: Vec<License>| licenses.into_iter().map(|license| license.id).collect::<Vec<_>>();

    let (sizes, all) =
        listed(&mut admin, &ListLicensesRequest { page_size: 999, ..Default::default() }).await;
    assert_eq!(ids(all), (0..count).map(id).collect::<Vec<_>>());
    assert_eq!((sizes.len(), sizes[0], sizes[12]), (13, 999, 12));
    let suspended = ListLicensesRequest { status: LicenseStatus::Suspended.into(), ..Default::default() };
    let (sizes, all) = listed(&mut admin, &suspended).await;
    assert_eq!(ids(all), [3, 11_000, 11_999].map(id));
    assert_eq!(sizes, [1, 2], "an answer reads 10,000 and no more");
}

#[tokio::test]
async fn usage_is_added_up_over_the_pages_of_the_store() {
    let site = Site::new();
    let store = RedbStore::open(&site.path("state.redb")).unwrap();
    let users: Vec<String> = (0..7).map(|user| format!("user-{user}")).collect();
    let rows: Vec<_> = users.iter().flat_map(|user| (0..500).map(|hour| used(key(user, hour), 1))).collect();
    for (sequence, rows) in (1..).zip(rows.chunks(1_000)) {
        store.add_usage(&batch(sequence, rows.to_vec())).await.unwrap();
    }
    store.close().await;
    drop(store);
    let gate = site.start(OVERRIDES);
    let mut admin = Admin::of(&gate).await;
    // The hours are those of 1970: 20 days and 20 hours.
    for (window, parts) in [(UsageWindow::Hour, 500), (UsageWindow::Day, 21), (UsageWindow::Total, 1)] {
        let rows = admin.usage(GetUsageRequest { window: window.into(), ..Default::default() }).await;
        let mut by_user = BTreeMap::<_, (usize, f64)>::new();
        for row in rows {
            let sum = by_user.entry(row.user).or_default();
            *sum = (sum.0 + 1, sum.1 + row.amount);
        }
        let told = users.iter().map(|user| (user.clone(), (parts, 500.0))).collect();
        assert_eq!(by_user, told, "{window:?}");
    }
}
