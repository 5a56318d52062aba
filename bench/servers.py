"""The servers that are measured: gates, and Cerbos if it can be had. Ends what it started, nothing else."""

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import messages

CERBOS_VERSION = "0.55.0"
CATALOG = [
    {
        "uid": {"type": "Tollgate::Dataset", "id": "sales/eu"},
        "attrs": {"classification": "confidential", "data_state": "PersonalData", "regulations": ["gdpr"]},
        "parents": [],
    }
]


class Unavailable(Exception):
    """What cannot be measured here, and why."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch(url, body=None):
    headers = {"content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=5) as response:
        return response.read().decode()


class Server:
    """A process that listens, with its files in a folder of its own."""

    def __init__(self, folder, command, port, probe, patience=120):
        self.port = port
        self.log = folder / "stderr.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        deadline = time.monotonic() + patience
        while True:
            try:
                fetch(probe)
                return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise Unavailable(f"{command[0]} did not start:\n{self.log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def resident(self):
        """Bytes of memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def cpu_seconds(self):
        """User and system time so far, in all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Issuer:
    """Keys and a license, made with the gate's own commands."""

    def __init__(self, tollgate, folder):
        self.tollgate = tollgate
        self.keys = folder / "keys"
        self.keys.mkdir()
        self.catalog = folder / "catalog.json"
        self.catalog.write_text(json.dumps(CATALOG))
        self.key, self.folder = folder / "issuer.jwk", folder
        public = self.keys / "issuer.json"
        self.run("keygen", "--issuer", "https://data.example", "--private", self.key, "--public", public)
        self.license = self.issue("license-00000000")
        self.token = self.license.read_text().strip()
        self.metered = self.issue("license-metered", self.quota("requests"))
        self.counted = self.issue("license-counted", self.quota("bytes"))

    def quota(self, metric):
        """More of it than is ever used here."""
        return {"id": "q", "metric": metric, "limit": 1e12, "per": "user", "window": "day"}

    def issue(self, id, *quotas):
        """The file of a license."""
        terms, license = self.folder / "terms.yaml", self.folder / f"{id}.license"
        limited = {**messages.TERMS, "quotas": quotas} if quotas else messages.TERMS
        draft = {"assignee": messages.ORGANIZATION, "id": id, "valid_for": "P1D", "terms": limited}
        terms.write_text(json.dumps(draft))
        self.run("issue", "--key", self.key, "--terms", terms, "--out", license)
        return license

    def run(self, *arguments):
        return subprocess.run([self.tollgate, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


class Gate(Server):
    """A gate with its records queued to a file, and its state in a file, in the database of a URL or in a hub, which is
    the port of another gate. `envoy` is how it reads what Envoy asks."""

    def __init__(
        self, issuer, folder, answer_cache, policies=None, license=None, database=None, state=None, hub=None, envoy=None
    ):
        folder.mkdir()
        self.issuer, self.license = issuer, license or issuer.license
        port, self.http = free_port(), free_port()
        if state is not None:
            shutil.move(state, folder / "state.redb")
        self.hub = free_port()
        kept = {"store": "postgres", "postgres": {"url": database}} if database else {}
        if hub is not None:
            kept = {"store": "hub", "hub": {"addresses": [f"http://127.0.0.1:{hub}"]}}
        config = {
            "listeners": {
                "hub": {"tcp": f"127.0.0.1:{self.hub}", "insecure": True} if hub is None else {},
                "decisions": {"tcp": f"127.0.0.1:{port}", "unix": "gate.sock"},
                "administration": {"unix": "admin.sock"},
                "http": {"tcp": f"127.0.0.1:{self.http}"},
            },
            "state": kept,
            "envoy": envoy or {},
            "licenses": {"keys": str(issuer.keys)},
            "policies": {"catalog": str(issuer.catalog), "answer_cache": answer_cache},
            "audit": {"mode": "queued", "stdout": False, "file": {"path": "decisions.jsonl", "keep": 1}},
            "telemetry": {"logs": {"level": "warn"}},
            "shutdown": {"notice": "0s"},
        }
        if policies is not None:
            own = folder / "policies"
            own.mkdir()
            (own / "operator.cedar").write_text(policies)
            config["policies"]["directory"] = str(own)
        (folder / "tollgate.yaml").write_text(json.dumps(config))
        self.unix = folder / "gate.sock"
        self.admin = f"unix:{folder / 'admin.sock'}"
        command = [issuer.tollgate, "serve", "--config", "tollgate.yaml"]
        super().__init__(folder, command, port, f"http://127.0.0.1:{self.http}/readyz")

    def decisions(self):
        """How many decisions were made so far: allowed, denied."""
        metrics = fetch(f"http://127.0.0.1:{self.http}/metrics")
        counts = dict(re.findall(r'^tollgate_checks_total{decision="(\w+)"} (\d+)', metrics, re.M))
        return int(counts["allow"]), int(counts["deny"])

    def ask(self):
        """Asks the question once with the gate's own client: h2load does not look into answers."""
        command = ["check", "--gate", f"http://127.0.0.1:{self.port}", "--license", self.license]
        command += ["--subject", messages.USER, "--organization", messages.ORGANIZATION, "--role", messages.ROLE]
        command += ["--action", messages.ACTION, "--dataset", messages.DATASET, "--purpose", messages.PURPOSE]
        self.issuer.run(*command, "--region", messages.REGION)


class Postgres:
    """A PostgreSQL server in a folder of its own, durable as by default."""

    def __init__(self, folder):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            raise Unavailable("PostgreSQL is not installed; on Debian: apt-get install postgresql")
        self.bin, self.folder = found[-1], folder
        folder.mkdir()
        # It refuses to run as root.
        user = [] if os.getuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if user:
            for path in (folder, *list(folder.parents)[:1]):
                path.chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        self.url = f"postgres://bench@127.0.0.1:{free_port()}/postgres"
        port = self.url.rpartition(":")[2].partition("/")[0]
        data = folder / "data"
        initdb = [*user, self.bin / "initdb", "-D", data, "-U", "bench", "-A", "trust"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
        command = [*user, self.bin / "postgres", "-D", data, "-p", port, "-k", folder, "-c", "listen_addresses=127.0.0.1"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready = [self.bin / "pg_isready", "-h", "127.0.0.1", "-p", port]
        for _ in range(200):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        self.__exit__()
        raise Unavailable("PostgreSQL did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


class Cerbos(Server):
    """Cerbos with its decision log on, and the terms of a license as attributes of the principal."""

    def __init__(self, folder, cache):
        binary = cerbos_binary(cache)
        folder.mkdir()
        shutil.copytree(Path(__file__).parent / "cerbos", folder / "policies")
        port, self.http = free_port(), free_port()
        config = {
            "server": {"grpcListenAddr": f"127.0.0.1:{port}", "httpListenAddr": f"127.0.0.1:{self.http}"},
            "storage": {"driver": "disk", "disk": {"directory": "policies", "watchForChanges": False}},
            "telemetry": {"disabled": True},
            "audit": {
                "enabled": True,
                "accessLogsEnabled": False,
                "decisionLogsEnabled": True,
                "backend": "file",
                "file": {"path": str(folder / "decisions.jsonl")},
            },
        }
        (folder / "cerbos.yaml").write_text(json.dumps(config))
        self.decision_log = folder / "decisions.jsonl"
        command = [binary, "server", "--config", "cerbos.yaml"]
        super().__init__(folder, command, port, f"http://127.0.0.1:{self.http}/_cerbos/health")

    def ask(self):
        """Asks the question once over HTTP, and whether it is denied when a term does not hold."""
        for purposes, effect in (
            (messages.CERBOS_RESOURCE["purposes"], "EFFECT_ALLOW"),
            (["Marketing"], "EFFECT_DENY"),
        ):
            attributes = {**messages.CERBOS_RESOURCE, "purposes": purposes}
            question = {
                "principal": {"id": messages.USER, "roles": [messages.ROLE], "attr": messages.CERBOS_PRINCIPAL},
                "resources": [
                    {
                        "actions": [messages.ACTION],
                        "resource": {"kind": "dataset", "id": messages.DATASET, "attr": attributes},
                    }
                ],
            }
            answer = fetch(f"http://127.0.0.1:{self.http}/api/check/resources", question)
            if effect not in answer:
                raise Unavailable(f"Cerbos was expected to answer {effect}: {answer}")

    def decisions(self):
        """How many decisions are in its log: allowed, denied."""
        allowed = denied = 0
        with open(self.decision_log, "rb") as log:
            for line in log:
                allowed += b'"EFFECT_ALLOW"' in line
                denied += b'"EFFECT_DENY"' in line
        return allowed, denied


def cerbos_binary(cache):
    package = "cerbos-linux-x64"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Unavailable("the npm package of Cerbos is for Linux on x86-64")
    binary = cache / f"node_modules/@cerbos/{package}/{package}"
    if not binary.exists():
        if shutil.which("npm") is None:
            raise Unavailable("there is no `npm` to fetch Cerbos with")
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(cache), f"@cerbos/{package}@{CERBOS_VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"npm cannot fetch Cerbos: {done.stderr.strip()[-300:]}")
    return str(binary)
