"""Loads a server with h2load and reads what it says.

Refuses a run in which anything but HTTP status 200 was answered. What is inside an answer h2load
does not see: whoever calls compares the server's own count of decisions.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import messages

CLIENTS, STREAMS = 16, 32
COUNTED = 20_000
"""Requests over which the server's CPU time is counted."""


@dataclass
class Target:
    """One request to one server, and what was measured of it."""

    name: str
    server: object
    method: str
    body: Path
    decisions: int = 1
    rates: list = field(default_factory=list)
    p99s: list = field(default_factory=list)
    cpus: list = field(default_factory=list)
    answered: int = 0

    @property
    def rate(self):
        """Decisions per second: the median of the rounds."""
        return median(self.rates) * self.decisions

    @property
    def p99(self):
        """Milliseconds: the median of the rounds."""
        return median(self.p99s)

    @property
    def cpu(self):
        """Microseconds of the server's CPU time, user and system, per decision: the median of the rounds. What else
        the machine does matters less to it than to throughput."""
        return median(self.cpus) / self.decisions


def require_h2load():
    if shutil.which("h2load") is None:
        raise SystemExit("`h2load` is missing; on Debian: apt-get install nghttp2-client")


def target(folder, name, server, method, message, decisions=1):
    body = folder / f"{name}.grpc"
    body.write_bytes(messages.frame(message))
    return Target(name, server, method, body, decisions)


def measure(targets, rounds, seconds):
    """Every target by turns in every round, so that what else the machine does meets all."""
    for number in range(rounds):
        for each in targets:
            print(f"\r\033[Kround {number + 1} of {rounds}: {each.name}", end="", flush=True)
            time_through(each, seconds)
            count_cpu(each)
    print("\r\033[K", end="")


def time_through(each, seconds):
    log = each.body.with_suffix(".log")
    log.unlink(missing_ok=True)
    answered = run(each, f"-D{seconds}", "--warm-up-time=1", f"--log-file={log}")
    each.rates.append(answered / seconds)
    each.p99s.append(p99(log))


def count_cpu(each):
    before = each.server.cpu_seconds()
    answered = run(each, f"-n{max(COUNTED // each.decisions, 1)}")
    each.cpus.append((each.server.cpu_seconds() - before) / answered * 1e6)


def run(each, *options):
    """Loads the server, and tells how many requests it answered."""
    command = ["h2load", "-t1", f"-c{CLIENTS}", f"-m{STREAMS}", *options, "-d", str(each.body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command += [f"http://127.0.0.1:{each.server.port}/{each.method}"]
    done = subprocess.run(command, capture_output=True, text=True)
    told = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if told is None or int(told[1]) == 0 or int(told[2]) + int(told[3]) > 0:
        raise SystemExit(f"h2load on {each.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    each.answered += int(told[1])
    return int(told[1])


def p99(log):
    """Of the times in a log of h2load: start, status and microseconds of each request."""
    with open(log) as lines:
        times = sorted(int(line.rsplit("\t", 1)[1]) for line in lines)
    return times[min(len(times) - 1, len(times) * 99 // 100)] / 1000
