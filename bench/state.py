"""What state costs: chunks set aside in a second, open streams and their end, a start on a full store.

Numbers without a ratio are of this machine, now; they are bounds to look at, not promises.
"""

import contextlib
import json
import subprocess
import time

from servers import Gate, Postgres, Unavailable

STREAMS = 10_000
LICENSES = 100_000


def told(bench, *words):
    done = subprocess.run([bench, *map(str, words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def rows(issuer, bench, folder):
    return [*leases(bench, folder), *streams(issuer, bench, folder), *start(issuer, bench, folder)]


def leases(bench, folder):
    with contextlib.ExitStack() as stack:
        file = told(bench, "leases", folder / "leases.redb")["per_second"]
        made = [("chunks of one quota set aside in a second, embedded, 64 callers", file, "(absolute)", "")]
        try:
            url = stack.enter_context(Postgres(folder / "leases-postgres")).url
            number = told(bench, "leases", url)["per_second"]
            made.append(("the same, PostgreSQL", number, "(absolute)", ""))
            made.append(("chunks in PostgreSQL", number / file, "embedded", ""))
        except Unavailable:
            pass
        return made


def streams(issuer, bench, folder):
    """Opens streams at a gate of its own, and has their license revoked."""
    with Gate(issuer, folder / "streams", "32 MiB") as gate:
        before = gate.resident()
        address, token = f"http://127.0.0.1:{gate.port}", issuer.token
        command = [bench, "streams", address, gate.admin, token, "license-00000000", str(STREAMS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as opener:
            if opener.stdout.readline().strip() != "open":
                raise SystemExit("the streams could not be opened")
            grown = gate.resident() - before
            opener.stdin.write("\n")
            opener.stdin.close()
            last = json.loads(opener.stdout.readline())["last_ms"]
    return [
        (f"{STREAMS:,} open streams: memory of one, in KiB", grown / STREAMS / 1024, "(absolute)", ""),
        ("from the acknowledged revocation to the end of the last of them, in ms", last, "(absolute)", ""),
    ]


def start(issuer, bench, folder):
    """From the command to readiness, with so many registered licenses."""
    file = folder / "full.redb"
    subprocess.run([bench, "register", file, str(LICENSES)], check=True)
    begun = time.monotonic()
    with Gate(issuer, folder / "full", "32 MiB", state=file) as gate:
        elapsed, resident = time.monotonic() - begun, gate.resident()
    return [
        (f"start to ready with {LICENSES:,} registered licenses, in s", elapsed, "(absolute)", "<= 2"),
        ("memory then, in MiB", resident / 2**20, "(absolute)", "<= 600"),
    ]
