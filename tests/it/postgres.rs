//! A real PostgreSQL for tests: started in a folder of its own, killed, frozen and started again.
//!
//! Where PostgreSQL is not installed, tests pass with a loud word, or fail when
//! `TOLLGATE_REQUIRE_POSTGRES` is set. Refuses to leave anything behind, however the tests end.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tollgate::config::{HumanDuration, Postgres};

/// How long a server may take to start, and to recover.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops the server and removes its folder as soon as the tests are over: when they end in whatever
/// way, its input ends.
const KEEPER: &str = r#"
    trap '' INT TERM
    cat >/dev/null
    server=$(head -n1 "$1/data/postmaster.pid" 2>/dev/null)
    if [ -n "$server" ]; then
        kill -CONT "$server" $(cat "/proc/$server/task/$server/children" 2>/dev/null)
        kill -QUIT "$server"
        for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$server" && sleep 0.2; done
    fi 2>/dev/null
    rm -rf "$1"
"#;

/// A running server.
pub(crate) struct Server {
    programs: PathBuf,
    /// Holds the data, the socket and the log.
    pub(crate) folder: PathBuf,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    /// The user that runs it, and the group, where the tests run as root: it refuses to be root.
    user: Option<(u32, u32)>,
    process: Mutex<Child>,
    keeper: Child,
}

/// The server that tests share, if PostgreSQL is installed.
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(|_| {})).as_ref()
}

/// A name that no other database of this run has.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    // `14` and `9.6` are compared as numbers: the newest is used.
    let version = |path: &Path| {
        let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        name.parse::<f64>().unwrap_or_default()
    };
    folders.sort_by(|a, b| version(b).total_cmp(&version(a)));
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

impl Server {
    /// Starts a server of its own; `prepare` may change what is in its folder before.
    pub(crate) fn start(prepare: impl FnOnce(&Self)) -> Option<Self> {
        Self::launch(|server| {
            server.init();
            prepare(server);
        })
    }

    /// Starts a standby of this server, which from then on acknowledges nothing that the standby does not have.
    pub(crate) fn standby(&self) -> Self {
        let standby = Self::launch(|standby| {
            let mut copy = standby.command("pg_basebackup");
            copy.args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync", "-d"]);
            copy.arg(format!("host=127.0.0.1 port={} user=postgres", self.port));
            output(copy.arg("-D").arg(standby.folder.join("data")));
        });
        self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.sql("postgres", "SELECT pg_reload_conf()");
        standby.unwrap()
    }

    fn launch(prepare: impl FnOnce(&Self)) -> Option<Self> {
        let Some(programs) = programs() else {
            let words = "PostgreSQL is not installed (apt-get install postgresql)";
            assert!(std::env::var_os("TOLLGATE_REQUIRE_POSTGRES").is_none(), "{words}");
            // Past the capture of the test's output, which is not shown where it passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {words}: its tests check nothing");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("tollgate-pg-").tempdir().unwrap().keep();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&folder).stdin(Stdio::piped());
        let keeper = keeper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let user = (fs::metadata(&folder).unwrap().uid() == 0).then(|| {
            let id = |what| Command::new("id").args([what, "postgres"]).output().ok();
            let id = |what| id(what).and_then(|out| String::from_utf8_lossy(&out.stdout).trim().parse().ok());
            (id("-u").unwrap_or(65534), id("-g").unwrap_or(65534))
        });
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        // Nobody else is asked for a port between here and the start; if so, the start fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Stands in until the server is there.
        let process = Mutex::new(Command::new("true").spawn().unwrap());
        let server = Self { programs, folder, port, user, process, keeper };
        prepare(&server);
        server.restart();
        Some(server)
    }

    fn init(&self) {
        let data = self.folder.join("data");
        let init = |locale: &[&str]| {
            let mut init = self.command("initdb");
            init.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D"])
                .arg(&data)
                .args(locale);
            init
        };
        // A language whose order is not that of bytes shows where a column does not ask for that.
        let icu = ["--locale=C", "--locale-provider=icu", "--icu-locale=en"];
        if !init(&icu).output().unwrap().status.success() {
            let _ = fs::remove_dir_all(&data);
            output(&mut init(&["--locale=C"]));
        }
        // The role `locked` needs its password.
        let access = "local all all trust\nhost all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n\
                      host replication all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), access).unwrap();
    }

    /// Where its programs lie.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// A program of PostgreSQL, as the user that may run it.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.user {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={user}"),
                    format!("--regid={group}"),
                    "--clear-groups".to_owned(),
                ]);
                command.arg(program);
                command
            }
        };
        command.current_dir(&self.folder).env("HOME", &self.folder).stdin(Stdio::null());
        command.env("LC_ALL", "C").env_remove("PGPASSWORD");
        command
    }

    /// Lets the user of the server read a file in the data folder, and nobody else.
    pub(crate) fn hand_over(&self, file: &Path) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = self.user {
            chown(file, Some(user), Some(group)).unwrap();
        }
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn restart(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
            let mut start = self.command("postgres");
            start.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
            start.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "shared_buffers=16MB"]);
            start.args(["-c", "max_connections=300", "-c", "fsync=on", "-c", "log_min_messages=warning"]);
            start.stdout(log.try_clone().unwrap()).stderr(log);
            let mut process = start.spawn().unwrap();
            while process.try_wait().unwrap().is_none() && Instant::now() < deadline {
                let mut question = self.psql("postgres", "SELECT 1");
                if question.output().unwrap().status.success() {
                    *self.process.lock().unwrap() = process;
                    return;
                }
                sleep(Duration::from_millis(50));
            }
            // After a kill, a process of before may still hold the memory.
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start:\n{}", log());
            sleep(Duration::from_millis(200));
        }
    }

    /// The processes of the server, the first of which starts the others.
    fn family(&self) -> Vec<String> {
        let first = self.process.lock().unwrap().id().to_string();
        // `setpriv` becomes what it runs, so this is the server.
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        std::iter::once(first).chain(children.split_whitespace().map(str::to_owned)).collect()
    }

    fn signal(signal: &str, processes: &[String]) {
        // Some may have ended meanwhile.
        let _ = Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status();
    }

    /// Kills all of it at once, as a power failure would, but for the disk.
    pub(crate) fn kill(&self) {
        self.freeze();
        Self::signal("-KILL", &self.family());
        self.process.lock().unwrap().wait().unwrap();
    }

    /// Stops it from doing anything; connections stay open.
    pub(crate) fn freeze(&self) {
        // The first, so that nobody new comes. The list of the others is whole only when all of them stand still
        // (proc_pid_task(5)).
        let mut frozen: Vec<String> = self.family().into_iter().take(1).collect();
        loop {
            Self::signal("-STOP", &frozen);
            let family = self.family();
            if family == frozen {
                return;
            }
            frozen = family;
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        Self::signal("-CONT", &self.family());
    }

    fn psql(&self, database: &str, statement: &str) -> Command {
        let mut psql = self.command("psql");
        psql.arg("-h").arg(&self.folder).args([
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            "-d",
            database,
        ]);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        psql
    }

    /// What a statement of the superuser answers.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        output(&mut self.psql(database, statement))
    }

    /// Executes statements until it is killed or they end.
    pub(crate) fn hold(&self, database: &str, statements: &str) -> Child {
        self.psql(database, statements).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Makes an empty database.
    pub(crate) fn database(&self) -> String {
        let name = unique();
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The configuration of a gate on this database.
    pub(crate) fn config(&self, database: &str) -> Postgres {
        Postgres {
            url: format!("postgres://postgres@127.0.0.1:{}/{database}", self.port),
            password_file: None,
            ca: None,
            connections: 8,
            statement_timeout: HumanDuration::seconds(10),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The keeper does the rest when its input ends.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        let _ = self.process.lock().unwrap().wait();
    }
}
