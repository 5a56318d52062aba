//! Stores are opened, or refused in words that say what to do and never show a password.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tollgate::config::{HumanDuration, Postgres};
use tollgate::domain::standing::Status;
use tollgate::store::postgres::PostgresStore;
use tollgate::store::{StateStore, StoreError};

use crate::postgres::{Server, server};
use crate::store::conformance::{at, at_once, change, license, target};

/// Why a store is not opened; within seconds, and without the password.
async fn refused(config: &Postgres) -> StoreError {
    let start = Instant::now();
    let Err(error) = PostgresStore::open(config).await else { panic!("{} is opened", config.url) };
    assert!(start.elapsed() < Duration::from_secs(15), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
    error
}

/// Refused for good, with these words.
async fn unusable(config: &Postgres, expected: &[&str]) {
    let StoreError::Unusable(words) = refused(config).await else { panic!("it may work later") };
    assert!(expected.iter().all(|part| words.contains(part)), "{words}");
}

/// Refused for now, with these words.
async fn unavailable(config: &Postgres, expected: &[&str]) {
    let StoreError::Unavailable(words) = refused(config).await else { panic!("it may work later") };
    assert!(expected.iter().all(|part| words.contains(part)), "{words}");
}

fn unused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_gates_prepare_the_tables_together() {
    let Some(server) = server() else { return };
    let database = server.database();
    let stores = at_once(8, |_| {
        let config = server.config(&database);
        async move { PostgresStore::open(&config).await.unwrap() }
    })
    .await;
    let mut epochs = Vec::new();
    for store in &stores {
        epochs.push(store.feed(0, 0, at(0)).await.unwrap().epoch);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1);
    assert_eq!(server.sql(&database, "SELECT count(*), max(version) FROM tollgate_schema"), "1|1");
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let Some(server) = server() else { return };
    let database = server.database();
    PostgresStore::open(&server.config(&database)).await.unwrap().close().await;
    server.sql(&database, "INSERT INTO tollgate_schema VALUES (1000)");
    unusable(&server.config(&database), &["version 1000", "knows 1", &database]).await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let Some(server) = server() else { return };
    let config = server.config("nowhere");
    unusable(&config, &["database `nowhere`", "127.0.0.1", "does not exist"]).await;
    let port = unused_port();
    let nobody = Postgres { url: format!("postgres://u@127.0.0.1:{port}/d"), ..config.clone() };
    unavailable(&nobody, &["database `d` as `u`", &format!("127.0.0.1:{port}"), "refused"]).await;
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
    let silent = Postgres { url, statement_timeout: HumanDuration::seconds(1), ..config };
    unavailable(&silent, &["no answer within 1s"]).await;
}

#[tokio::test]
async fn of_several_servers_the_one_that_takes_writes_is_used() {
    let Some(server) = server() else { return };
    let database = server.database();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let [silent, nobody] = [silent.local_addr().unwrap().port(), unused_port()];
    let hosts = format!("127.0.0.1:{silent},127.0.0.1:{nobody},127.0.0.1:{}", server.port);
    let config =
        Postgres { url: format!("postgres://postgres@{hosts}/{database}"), ..server.config(&database) };
    let config = Postgres { statement_timeout: HumanDuration::seconds(3), ..config };
    let store = PostgresStore::open(&config).await.unwrap();
    store.change(&change(target("one"), Status::Revoked)).await.unwrap();
    server.sql("postgres", &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    unavailable(&server.config(&database), &["does not allow writes"]).await;
}

#[tokio::test]
async fn without_the_right_to_make_tables_one_learns_which() {
    let Some(server) = server() else { return };
    let database = server.database();
    server.sql(&database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let role = format!("reader_{database}");
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let url = format!("postgres://{role}@127.0.0.1:{}/{database}", server.port);
    let config = Postgres { url, ..server.config(&database) };
    unusable(&config, &["permission denied", "GRANT CREATE ON SCHEMA", &role]).await;
    // Once others made them, the right to use them is enough.
    PostgresStore::open(&server.config(&database)).await.unwrap().close().await;
    server.sql(
        &database,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
    );
    let store = PostgresStore::open(&config).await.unwrap();
    store.register(&license("one")).await.unwrap();
}

/// What is acknowledged is durable, and takers do not fail each other, whatever the database's defaults.
#[tokio::test]
async fn defaults_of_the_database_do_not_weaken_the_store() {
    for weak in ["off", "local"] {
        defaults_do_not_weaken(weak).await;
    }
}

async fn defaults_do_not_weaken(commit: &str) {
    let Some(server) = server() else { return };
    let database = server.database();
    server.sql(
        &database,
        &format!(
            "ALTER DATABASE {database} SET synchronous_commit = {commit};
             ALTER DATABASE {database} SET default_transaction_isolation = serializable;
             ALTER DATABASE {database} SET statement_timeout = 0"
        ),
    );
    let store = PostgresStore::open(&server.config(&database)).await.unwrap();
    let settings = [
        "synchronous_commit",
        "transaction_isolation",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
    ]
    .map(|name| format!("current_setting('{name}')"))
    .join(" || ' ' || ");
    server.sql(
        &database,
        &format!(
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN NEW.registered_by := {settings}; RETURN NEW; END $$;
             CREATE TRIGGER tell BEFORE INSERT ON tollgate_license FOR EACH ROW EXECUTE FUNCTION tell()"
        ),
    );
    store.register(&license("one")).await.unwrap();
    let told = store.license("one").await.unwrap().unwrap().registered_by;
    assert_eq!(told, "on read committed 10s 10s");
}

/// Over a Unix socket, to tables in a schema of their own.
#[tokio::test]
async fn a_socket_and_a_schema_can_be_named() {
    let Some(server) = server() else { return };
    let database = server.database();
    server.sql(&database, "CREATE SCHEMA licensing");
    let socket = server.folder.display();
    let url = format!(
        "host={socket} port={} user=postgres dbname={database} options='-c search_path=licensing'",
        server.port
    );
    let store = PostgresStore::open(&Postgres { url, ..server.config(&database) }).await.unwrap();
    store.register(&license("one")).await.unwrap();
    assert_eq!(server.sql(&database, "SELECT id FROM licensing.tollgate_license"), "one");
}

/// The password of the moment is read from its file, and shown nowhere.
#[tokio::test]
async fn the_password_comes_from_its_file() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    server.sql(
        &database,
        "CREATE ROLE locked LOGIN PASSWORD 'hunter2'; GRANT CREATE ON SCHEMA public TO locked",
    );
    let file = server.folder.join("password");
    let url = format!("postgres://locked@127.0.0.1:{}/{database}", server.port);
    let config = Postgres { url, ..server.config(&database) };
    if std::env::var_os("PGPASSWORD").is_none() {
        unusable(&config, &["password missing", "`password_file` or `PGPASSWORD`"]).await;
    }
    let config = Postgres { password_file: Some(file.clone()), connections: 3, ..config };
    unusable(&config, &["password_file", file.to_str().unwrap(), "No such file"]).await;
    fs::write(&file, "hunter3\n").unwrap();
    unusable(&config, &["password authentication failed", "locked", "127.0.0.1"]).await;
    fs::write(&file, "hunter2\n").unwrap();
    let store = PostgresStore::open(&config).await.unwrap();
    store.register(&license("one")).await.unwrap();
    // The password changes: the connections that are there go on, and new ones use the new one.
    server.sql(&database, "ALTER ROLE locked PASSWORD 'hunter4'");
    store.license("one").await.unwrap().unwrap();
    server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'locked'");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let Err(StoreError::Unavailable(words)) = store.license("one").await else {
        panic!("a wrong password works")
    };
    assert!(words.contains("password authentication failed") && !words.contains("hunter"), "{words}");
    fs::write(&file, "hunter4").unwrap();
    store.license("one").await.unwrap().unwrap();
    let shown = Postgres { url: format!("postgres://locked:hunter4@127.0.0.1/{database}"), ..config };
    unusable(&shown, &["holds a password", "password_file"]).await;
}

/// An authority, and a certificate of it for this machine, with its key.
fn authority(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn certificates_are_verified() {
    let (ca, certificate, key) = authority("ours");
    let secure = |server: &Server| {
        let data = server.folder.join("data");
        fs::write(data.join("server.crt"), &certificate).unwrap();
        fs::write(data.join("server.key"), &key).unwrap();
        server.hand_over(&data.join("server.key"));
        let settings = data.join("postgresql.conf");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("{text}\nssl = on\n")).unwrap();
        let access = "local all all trust\nhostssl all locked 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), access).unwrap();
    };
    let Some(server) = Server::start(secure) else { return };
    let database = server.database();
    let [ours, others, empty] = ["ours.pem", "others.pem", "empty.pem"].map(|name| server.folder.join(name));
    fs::write(&ours, ca).unwrap();
    fs::write(&others, authority("others").0).unwrap();
    fs::write(&empty, "").unwrap();
    let config = Postgres { ca: Some(ours.clone()), ..server.config(&database) };
    let store = Arc::new(PostgresStore::open(&config).await.unwrap());
    store.register(&license("one")).await.unwrap();
    let revoke = change(target("one"), Status::Revoked);
    let news = tokio::time::timeout(Duration::from_secs(1), store.news());
    let (news, _) = tokio::join!(news, store.change(&revoke));
    news.expect("the news come over TLS too");
    assert_eq!(server.sql(&database, "SELECT count(*) > 0 FROM pg_stat_ssl WHERE ssl"), "t");
    // With a password, which is bound to the certificate.
    server.sql(
        &database,
        "CREATE ROLE locked LOGIN PASSWORD 'hunter2'; GRANT ALL ON ALL TABLES IN SCHEMA public TO locked",
    );
    let password = server.folder.join("password");
    fs::write(&password, "hunter2").unwrap();
    let url = format!("postgres://locked@localhost:{}/{database}?channel_binding=require", server.port);
    let bound = Postgres { url, password_file: Some(password), ..config.clone() };
    PostgresStore::open(&bound).await.unwrap().license("one").await.unwrap().unwrap();

    // An authority that is replaced is believed without a restart.
    let (ca, certificate, key) = authority("next");
    fs::write(server.folder.join("data/server.crt"), certificate).unwrap();
    fs::write(server.folder.join("data/server.key"), key).unwrap();
    fs::write(&ours, ca).unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tollgate'";
    server.sql("postgres", end);
    store.license("one").await.unwrap().unwrap();

    unusable(&Postgres { ca: Some(others), ..config.clone() }, &["TLS", "UnknownIssuer"]).await;
    unusable(&Postgres { ca: Some(empty), ..config.clone() }, &["state.postgres.ca", "no certificate"]).await;
    let clear = Postgres { url: format!("{}?sslmode=disable", config.url), ..config };
    unusable(&clear, &["pg_hba.conf", "no encryption"]).await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let Some(server) = server() else { return };
    let config = server.config("postgres");
    let url = format!("{}?sslmode=require", config.url);
    let file = server.folder.join("some.pem");
    fs::write(&file, authority("some").0).unwrap();
    unusable(&Postgres { url, ca: Some(file), ..config }, &["server does not support TLS"]).await;
}
