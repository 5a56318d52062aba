//! Where the database is: the servers of the URL, one by one, and whether they are spoken to over TLS.
//!
//! Refuses a password in the URL, where processes and logs show it, and to speak in the clear to
//! another machine unless the URL says so.

use std::net::IpAddr;
use std::time::Duration;

use deadpool_postgres::tokio_postgres::Config;
use deadpool_postgres::tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::faults::words;
use crate::config::Postgres;
use crate::store::StoreError;

/// One server that may take writes.
pub(super) struct Target {
    /// How it is connected to; without the password.
    pub(super) config: Config,
    /// What it is called in messages.
    pub(super) name: String,
}

/// The servers, and the database on them in words.
pub(super) struct Address {
    /// The servers, in the order of the URL; at least one.
    pub(super) targets: Vec<Target>,
    /// The database and the user.
    pub(super) database: String,
}

/// What of the configuration decides how each server is connected to.
struct Asked<'a> {
    url: &'a Config,
    authorities: bool,
    patience: Duration,
}

/// Reads the URL.
pub(super) fn read(config: &Postgres) -> Result<Address, StoreError> {
    // Before anything is parsed: the parser's messages could show parts of it.
    if shows_password(&config.url) {
        return Err(password_refused());
    }
    let url: Config = config.url.parse().map_err(|error| {
        let hint = match config.url.contains("sslmode=verify") {
            true => "; write `sslmode=require`: certificates are always verified",
            false => "",
        };
        unusable(&format!("{}{hint}", words(&error)))
    })?;
    if url.get_password().is_some() {
        return Err(password_refused());
    }
    let (hosts, addresses, ports) = (url.get_hosts(), url.get_hostaddrs(), url.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err(unusable("it names no host; write `postgres://USER@HOST/DATABASE`"));
    }
    if (!hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len())
        || (ports.len() > 1 && ports.len() != count)
    {
        return Err(unusable("it needs as many addresses and ports as hosts, or one port for all"));
    }
    let asked =
        Asked { url: &url, authorities: config.ca.is_some(), patience: config.statement_timeout.get() };
    let targets = (0..count).map(|index| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        asked.target(hosts.get(index), addresses.get(index).copied(), port)
    });
    let user = url.get_user().unwrap_or("the user of this process");
    let database = format!("database `{}` as `{user}`", url.get_dbname().unwrap_or(user));
    Ok(Address { targets: targets.collect(), database })
}

impl Asked<'_> {
    fn target(&self, host: Option<&Host>, address: Option<IpAddr>, port: u16) -> Target {
        let url = self.url;
        let mut config = Config::new();
        config.application_name(url.get_application_name().unwrap_or("tollgate"));
        config.port(port).target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.ssl_negotiation(url.get_ssl_negotiation()).channel_binding(url.get_channel_binding());
        url.get_user().map(|user| config.user(user));
        url.get_dbname().map(|name| config.dbname(name));
        url.get_options().map(|options| config.options(options));
        address.map(|address| config.hostaddr(address));
        let (name, near) = match (host, address) {
            (Some(Host::Unix(folder)), None) => {
                config.host_path(folder);
                (folder.display().to_string(), Near::Socket)
            }
            (host, address) => {
                let host = match (host, address) {
                    (Some(Host::Tcp(host)), _) => host.clone(),
                    (_, address) => address.map(|address| address.to_string()).unwrap_or_default(),
                };
                config.host(&host);
                (format!("{host}:{port}"), near(&host, address))
            }
        };
        config.ssl_mode(self.tls(near));
        // A connection that is cut silently is noticed within seconds, not hours.
        config.connect_timeout(url.get_connect_timeout().copied().unwrap_or(self.patience / 2));
        config.tcp_user_timeout(url.get_tcp_user_timeout().copied().unwrap_or(Duration::from_secs(10)));
        config.keepalives(url.get_keepalives()).keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        Target { config, name: format!("`{name}`") }
    }

    /// Whether TLS is spoken; where it is, certificates are always verified. A server on this machine
    /// often has a certificate that nobody vouches for, so one has to ask for it there.
    fn tls(&self, near: Near) -> SslMode {
        match (self.url.get_ssl_mode(), near) {
            (_, Near::Socket) | (SslMode::Disable, _) => SslMode::Disable,
            (SslMode::Prefer, Near::Loopback) if !self.authorities => SslMode::Disable,
            _ => SslMode::Require,
        }
    }
}

/// How far a server is.
#[derive(Clone, Copy)]
enum Near {
    Socket,
    Loopback,
    Elsewhere,
}

fn near(host: &str, address: Option<IpAddr>) -> Near {
    match address.or_else(|| host.parse().ok()) {
        Some(address) if address.is_loopback() => Near::Loopback,
        None if host == "localhost" => Near::Loopback,
        _ => Near::Elsewhere,
    }
}

fn shows_password(url: &str) -> bool {
    let authority = url.split_once("://").map(|(_, rest)| rest);
    let credentials = authority.and_then(|rest| rest.split_once('@')).map(|(before, _)| before);
    let before_host = credentials.is_some_and(|user| user.contains(':'));
    let parameter = url.split("password").skip(1).any(|after| after.trim_start().starts_with('='));
    before_host || parameter
}

fn password_refused() -> StoreError {
    unusable("it holds a password; write it to a file and name that in `password_file`, or set `PGPASSWORD`")
}

fn unusable(problem: &str) -> StoreError {
    StoreError::Unusable(format!("`state.postgres.url` cannot be used: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HumanDuration;

    fn config(url: &str, ca: bool) -> Postgres {
        let ca = ca.then(|| "ca.pem".into());
        let statement_timeout = HumanDuration::seconds(3);
        Postgres { url: url.into(), password_file: None, ca, connections: 8, statement_timeout }
    }

    fn modes(url: &str, ca: bool) -> Vec<SslMode> {
        let address = read(&config(url, ca)).unwrap();
        address.targets.iter().map(|target| target.config.get_ssl_mode()).collect()
    }

    #[test]
    fn other_machines_are_spoken_to_over_tls() {
        use SslMode::{Disable, Require};
        assert_eq!(modes("postgres://u@db1,127.0.0.1,localhost/d", false), [Require, Disable, Disable]);
        assert_eq!(modes("postgres://u@db1,127.0.0.1/d?sslmode=disable", true), [Disable, Disable]);
        assert_eq!(modes("postgres://u@[::1]/d", true), [Require]);
        assert_eq!(modes("postgres://u@localhost/d?sslmode=require", false), [Require]);
        assert_eq!(modes("host=/run/postgresql,db1 user=u", true), [Disable, Require]);
        assert_eq!(modes("postgres://u@10.0.0.1/d?sslmode=prefer", false), [Require]);
        assert_eq!(modes("postgres://u@localhost/d?hostaddr=10.0.0.1", false), [Require]);
        assert_eq!(modes("hostaddr=10.0.0.1 user=u", false), [Require]);
    }

    #[test]
    fn only_servers_that_take_writes_are_used() {
        let address = read(&config("postgres://u@db1:1,db2/d?target_session_attrs=any", false)).unwrap();
        for target in &address.targets {
            assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
            assert_eq!(target.config.get_hosts().len(), 1);
        }
        let names: Vec<&str> = address.targets.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["`db1:1`", "`db2:5432`"]);
        assert_eq!(address.database, "database `d` as `u`");
    }

    #[test]
    fn passwords_are_refused_and_never_shown() {
        let urls = [
            "postgres://u:hunter2@db/d",
            "postgres://u:hunter?2=3@db/d",
            "postgres://u@db/d?password=hunter2",
            "postgres://u@db/d?pass%77ord=hunter2",
            "host=db user=u password = 'hunter2 '",
            "host=db password=hun hunter2=3",
        ];
        for url in urls {
            let Err(StoreError::Unusable(words)) = read(&config(url, false)) else { panic!("{url}") };
            assert!(words.contains("password_file") && !words.contains("hunter"), "{url}: {words}");
        }
        assert!(read(&config("postgres://u@db:5432/d?options=-csearch_path=a@b", false)).is_ok());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let cases = [
            ("postgres:///d", "names no host"),
            ("postgres://u@db/d?sslmode=verify-full", "write `sslmode=require`"),
            ("postgres://u@db/d?sslrootcert=x", "unknown option `sslrootcert`"),
            ("host=a,b port=1,2,3", "one port for all"),
        ];
        for (url, expected) in cases {
            let Err(StoreError::Unusable(words)) = read(&config(url, false)) else { panic!("{url}") };
            assert!(words.contains(expected), "{url}: {words}");
        }
    }
}
