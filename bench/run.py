#!/usr/bin/env python3
"""`make bench`: the gate beside a no-op, beside itself with more policies, and beside Cerbos.

Everything in one go, by turns, on this machine; what counts is the ratios. Refuses to print a row
whose requests were not all answered as they should be. `--quick` for runs of one second.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import envoy
import load
import messages
import state
from servers import Cerbos, Gate, Issuer, Postgres, Unavailable

HERE = Path(__file__).resolve().parent
CHECK = "tollgate.v1.DecisionService/Check"
BATCH = "tollgate.v1.DecisionService/CheckBatch"
NO_OP = "grpc.health.v1.Health/Check"
CERBOS = "cerbos.svc.v1.CerbosService/CheckResources"
BATCH_SIZE = 50
POLICIES = (10, 100, 1_000, 10_000)
LICENSES = 100_000
CALLGRIND_CHECKS = 1_000


def build():
    """The gate and the in-process measurements: paths of the two programs, and of the target folder."""
    command = ["cargo", "build", "--release", "--bin", "tollgate", "--bench", "gate", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit("the build failed")
    built = [json.loads(line) for line in done.stdout.splitlines()]
    programs = {artifact["target"]["name"]: artifact["executable"] for artifact in built if artifact.get("executable")}
    return programs["tollgate"], programs["gate"], Path(programs["tollgate"]).parent


def serve(stack, folder, issuer, bench, cache):
    """Starts everything that is loaded; a gate for each setting. `stack` ends it."""

    def gate(name, answers, policies=None, **settings):
        return stack.enter_context(Gate(issuer, folder / name, answers, policies, **settings))

    gates = {"remembered": gate("remembered", "32 MiB"), "fresh": gate("fresh", "0 B")}
    gates["quota-remembered"] = gate("quota-remembered", "32 MiB", license=issuer.metered)
    gates["quota-fresh"] = gate("quota-fresh", "0 B", license=issuer.metered)
    hub = gates["quota-fresh"].hub
    gates["quota-hub"] = gate("quota-hub", "0 B", license=issuer.metered, hub=hub)
    try:
        database = stack.enter_context(Postgres(folder / "postgres")).url
        gates["quota-postgres"] = gate("quota-postgres", "0 B", license=issuer.metered, database=database)
    except Unavailable as why:
        print(f"without PostgreSQL: {why}", file=sys.stderr)
    for count in POLICIES:
        text = subprocess.run([bench, "policies", str(count)], check=True, capture_output=True, text=True).stdout
        gates[f"policies-{count}"] = gate(f"policies-{count}", "0 B", text)
    try:
        return gates, stack.enter_context(Cerbos(folder / "cerbos", cache)), None
    except Unavailable as why:
        return gates, None, str(why)


def targets(folder, gates, cerbos, token):
    made = {
        "no-op": load.target(folder, "no-op", gates["remembered"], NO_OP, b""),
        "batch": load.target(
            folder, "batch", gates["remembered"], BATCH, messages.check_batch(token, BATCH_SIZE), BATCH_SIZE
        ),
    }
    for name, gate in gates.items():
        check = messages.check(gate.license.read_text().strip())
        made[name] = load.target(folder, name, gate, CHECK, check)
    if cerbos is not None:
        made["cerbos"] = load.target(folder, "cerbos", cerbos, CERBOS, messages.cerbos())
    return made


def verify_answers(gates, cerbos, made):
    """That what was loaded was decided, and allowed."""
    for name, gate in gates.items():
        asked = made[name].answered + (made["batch"].answered * BATCH_SIZE if name == "remembered" else 0)
        allowed, denied = gate.decisions()
        if allowed < asked or denied:
            raise SystemExit(f"gate `{name}`: {asked} decisions asked, {allowed:.0f} allowed, {denied:.0f} denied")
    if cerbos is not None:
        allowed, denied = cerbos.decisions()
        if allowed < made["cerbos"].answered or denied != 1:
            raise SystemExit(f"Cerbos: {made['cerbos'].answered} asked, {allowed} in its log, {denied} denied")


def in_process(bench, *words):
    done = subprocess.run([bench, *map(str, words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def instructions(bench, folder, kind):
    """The instructions of one check, as callgrind counts them; nothing without it."""
    counts = []
    for checks in (CALLGRIND_CHECKS, 2 * CALLGRIND_CHECKS):
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.{kind}.{checks}"]
        try:
            done = subprocess.run([*command, bench, "checks", kind, str(checks)], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        counts.append(int(re.search(r"Collected : (\d+)", done.stderr)[1]))
    return (counts[1] - counts[0]) / CALLGRIND_CHECKS


def throughput_rows(made):
    """What, value, of what, goal."""
    no_op, fresh, remembered = made["no-op"].rate, made["fresh"].rate, made["remembered"].rate
    rows = [
        ("no-op: grpc.health.v1.Health/Check", 1.0, "itself", ""),
        ("Check, question asked before", remembered / no_op, "no-op", ">= 0.7"),
        ("Check, fresh question (answer_cache: 0 B)", fresh / no_op, "no-op", ">= 0.5"),
        (f"CheckBatch of {BATCH_SIZE}, per decision", made["batch"].rate / no_op, "no-op", ""),
        ("CPU time of a no-op, in one asked before", made["no-op"].cpu / made["remembered"].cpu, "that of the Check", ""),
        ("CPU time of a no-op, in a fresh one", made["no-op"].cpu / made["fresh"].cpu, "that of the Check", ""),
    ]
    for name, words in (
        ("quota-remembered", "with a quota, question asked before"),
        ("quota-fresh", "with a quota, fresh question"),
        ("quota-hub", "with a quota in a hub, fresh question"),
        ("quota-postgres", "with a quota in PostgreSQL, fresh question"),
    ):
        if name in made:
            goal = ">= 0.5" if "fresh" in words else ">= 0.7"
            rows.append((f"Check, {words}", made[name].rate / no_op, "no-op", goal))
    for count in POLICIES[1:]:
        ratio = made[f"policies-{count}"].rate / made[f"policies-{POLICIES[0]}"].rate
        goal = ">= 0.9" if count == POLICIES[-1] else ""
        rows.append((f"Check, fresh, {count:,} operator policies", ratio, f"{POLICIES[0]} operator policies", goal))
    return rows


def cerbos_rows(made, why_not):
    if "cerbos" not in made:
        return [(f"Cerbos: not measured: {why_not}", None, "", "")]
    cerbos, rows = made["cerbos"], []
    for name, words, goal in (("remembered", "question asked before", ">= 15"), ("fresh", "fresh question", ">= 8")):
        rows.append((f"Check, {words}", made[name].rate / cerbos.rate, "Cerbos, decision log on", goal))
        rows.append((f"Check, {words}: p99", made[name].p99 / cerbos.p99, "Cerbos' p99", "<= 0.2"))
        rows.append((f"CPU time of Cerbos, {words}", cerbos.cpu / made[name].cpu, "that of the Check", ""))
    return rows


def in_process_rows(bench, folder):
    unseen = in_process(bench, "unseen")
    rows = [
        (
            "first check of an unseen license: time",
            unseen["first_check_us"] / unseen["signature_us"],
            "bare signature verification",
            "<= 3",
        ),
    ]
    for answers, bound in (("0 B", "licenses.cache"), ("32 MiB", "licenses.cache + answer_cache")):
        memory = in_process(bench, "memory", LICENSES, answers)
        ratio = memory["grown_bytes"] / memory["bound_bytes"]
        rows.append((f"memory grown by {LICENSES:,} distinct licenses", ratio, bound, "<= 1"))
    for kind in ("remembered", "fresh"):
        count = instructions(bench, folder, kind)
        rows.append((f"instructions of a Check, {kind}", count, "(absolute; callgrind)", "falls or stays"))
    return rows


def print_table(rows):
    shown = [("what", "ratio", "to", "goal", "")]
    for what, number, to, goal in rows:
        text = "-" if number is None else f"{number:,.0f}" if number >= 1000 else f"{number:.2f}"
        shown.append((what, text, to, goal, verdict(number, goal)))
    widths = [max(len(row[column]) for row in shown) for column in range(5)]
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def verdict(number, goal):
    met = re.match(r"([<>]=) ([\d.]+)$", goal)
    if met is None or number is None:
        return ""
    limit = float(met[2])
    return "met" if (number >= limit if met[1] == ">=" else number <= limit) else "MISSED"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="runs of one second, fewer rounds")
    arguments = parser.parse_args()
    rounds, seconds = (1, 1) if arguments.quick else (3, 3)
    load.require_h2load()
    tollgate, bench, cache = build()
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        folder = Path(name)
        issuer = Issuer(tollgate, folder)
        with contextlib.ExitStack() as stack:
            gates, cerbos, why_not = serve(stack, folder, issuer, bench, cache / "cerbos")
            for server in [*gates.values(), *filter(None, [cerbos])]:
                server.ask()
            made = targets(folder, gates, cerbos, issuer.token)
            load.measure(list(made.values()), rounds, seconds)
            verify_answers(gates, cerbos, made)
        rows = throughput_rows(made) + cerbos_rows(made, why_not) + in_process_rows(bench, folder)
        rows += state.rows(issuer, bench, folder)
        rows += envoy.rows(issuer, folder, rounds, seconds)
    print_table(rows)
    print(
        f"""
Throughput unless it says otherwise: medians of {rounds} runs of {seconds} s, by turns. Load: h2load,
{load.CLIENTS} connections of {load.STREAMS} streams. License remembered, base policies, records queued to a file, no
quotas where it does not say so. `fresh`: a gate that remembers no answers (`policies.answer_cache: 0 B`), so every question is evaluated.
Per second, on this machine, now: """
        + ", ".join(f"{each.name} {each.rate:,.0f}" for each in made.values())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
