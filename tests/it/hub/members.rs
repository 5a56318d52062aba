//! Whom a hub serves, and what each of them may do.

use tonic::Code;

use super::{Fleet, ready};
use crate::gate::{ask, codes, eventually, is_allowed};
use crate::operators::Admin;
use crate::tls::Authority;

#[tokio::test]
async fn strangers_and_those_who_are_no_members_are_refused() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let stranger = fleet.sidecar_named(&Authority::new(), "sidecar", &[]);
    let nobody = fleet.sidecar_named(&fleet.authority, "somebody", &[]);
    for sidecar in [&stranger, &nobody] {
        let answer = sidecar.check(ask(&hub.site().issuer.license("one"))).await;
        assert_eq!(codes(&answer), ["STATE_STALE"]);
        assert_eq!(sidecar.get("/readyz").0, 503);
    }
    let log = nobody.stderr.text();
    assert!(log.contains("the state forbids it") && log.contains("is no member of this hub"), "{log}");
    let log = stranger.stderr.text();
    assert!(log.contains("no hub answers") && !log.contains("member"), "{log}");
}

#[tokio::test]
async fn certificates_are_read_again_for_each_connection() {
    let fleet = Fleet::new(1);
    let _hub = fleet.hub(0, &[]);
    let sidecar = fleet.sidecar_named(&fleet.authority, "somebody", &[]);
    assert_eq!(sidecar.get("/readyz").0, 503);
    fleet.install(sidecar.site(), &fleet.authority, "sidecar");
    ready(&sidecar).await;
}

#[tokio::test]
async fn only_who_may_operate_changes_anything() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let own = [("listeners.administration.unix", "admin.sock")];
    let sidecar = fleet.sidecar(&own);
    let console = fleet.sidecar_named(&fleet.authority, "console", &own);
    ready(&sidecar).await;
    ready(&console).await;
    let mut of_sidecar = Admin::of(&sidecar).await;
    let token = hub.site().issuer.license("one");
    assert_eq!(of_sidecar.try_revoke("one").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(of_sidecar.register(&token).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(is_allowed(&sidecar.check(ask(&token)).await));

    let mut of_console = Admin::of(&console).await;
    assert!(of_console.register(&token).await.unwrap());
    let standing = of_console.try_revoke("one").await.unwrap();
    assert_eq!(standing.revision, 1);
    assert_eq!(codes(&hub.check(ask(&token)).await), ["REVOKED"]);
    assert_eq!(codes(&console.check(ask(&token)).await), ["REVOKED"]);
    eventually("it reaches all", async || codes(&sidecar.check(ask(&token)).await) == ["REVOKED"]).await;
    // Again, it stands as it stood.
    assert_eq!(of_console.try_revoke("one").await.unwrap(), standing);
}
