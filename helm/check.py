#!/usr/bin/env python3
"""Checks the Helm chart, with real tools and without a cluster: helm/check.py [--update]

Every values file in tollgate/ci is rendered, compared with golden/, and held against the schemas of Kubernetes, of the
Prometheus Operator and of cert-manager. `--update` renews golden/ and the table of the README instead of comparing.
Refuses to pass what it did not look at: each check counts. tests/it/chart.rs then starts gates from golden/.
"""

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from checks.tools import Tools, run  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/tollgate"
CHECKS = ROOT / "helm/checks"
GOLDEN = ROOT / "helm/golden"
# Pods that the injector has been at; tests/it/injector.rs holds them current.
INJECTED = CHECKS / "injected.yaml"
EXAMPLE = ROOT / "examples/kubernetes/orders"
KUBERNETES = ["1.30.0", "1.34.0", "1.37.0"]

# What the linter of security says, and why it is so all the same. Everything else that it says fails.
EXPLAINED = [
    ("CKV_K8S_21", "", "Helm puts objects into the namespace that it is told"),
    ("CKV_K8S_11", "", "a limit of CPU only makes decisions late; users may set one"),
    ("CKV_K8S_15", "", "a tag is a version, or there is a digest: what was pulled is the same"),
    ("CKV_K8S_43", "", "the digest is known once the image is pushed; users may set it"),
    ("CKV_K8S_8", "Pod.*-test", "a test runs once"),
    ("CKV_K8S_9", "Pod.*-test", "a test runs once"),
    ("CKV2_K8S_6", "Pod.*-test", "a test listens to nobody"),
    ("CKV_K8S_38", "Deployment.*-injector", "it makes its certificate, and keeps it at the API server"),
    ("CKV_K8S_155", "ClusterRole.*-injector", "of one webhook, its own: it has the API server trust its certificate"),
    ("CKV_K8S_8", "Deployment.*orders", "the application of the example is the reader's own"),
    ("CKV_K8S_9", "Deployment.*orders", "the application of the example is the reader's own"),
    ("CKV2_K8S_6", "Pod.*orders", "the example shows what a sidecar needs"),
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--update", action="store_true", help="renew golden renders and the README's table")
    update = arguments.parse_args().update
    begun = time.monotonic()
    tools = Tools(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "chart-tools")
    # Here, because it came with the tools.
    sys.path.extend(str(path) for path in (tools.folder / "venv").glob("lib/*/site-packages"))
    chart = Chart(tools)
    chart.lint()
    rendered = chart.render_all()
    goldens(rendered, update)
    chart.refusals()
    chart.openshift()
    kubernetes(tools)
    custom_resources(tools)
    alerts(tools)
    metrics()
    security(tools)
    readme(tools, update)
    schema()
    version()
    print(f"all of it took {time.monotonic() - begun:.0f} s")


def tell(what, count):
    """Says how much was looked at: nothing is a mistake."""
    if not count:
        sys.exit(f"{what}: there was nothing to look at")
    print(f"{what}: {count}", flush=True)


class Chart:
    """The chart, and the example that has it as a dependency, as Helm sees them."""

    def __init__(self, tools):
        self.helm = tools.helm
        self.values = sorted((CHART / "ci").glob("*-values.yaml"))
        # Helm writes into a chart with dependencies, so that is a copy.
        copy = tools.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        for folder in [CHART, EXAMPLE]:
            shutil.copytree(folder, copy / folder.relative_to(ROOT))
        self.example = copy / EXAMPLE.relative_to(ROOT)
        run(self.helm, "dependency", "build", self.example)

    def lint(self):
        for values in self.values:
            run(self.helm, "lint", "--strict", CHART, "--values", values)
        run(self.helm, "lint", "--strict", self.example)
        tell("lint", len(self.values) + 1)

    def render(self, values, *more):
        return run(self.helm, "template", "demo", CHART, "--namespace", "data", "--values", values, *more)

    def render_all(self):
        """Every golden render by its name, each rendered twice."""
        found = {}
        for _ in range(2):
            new = {values.name.removesuffix("-values.yaml"): self.render(values) for values in self.values}
            new["orders"] = run(self.helm, "template", "orders", self.example, "--namespace", "shop")
            if found and new != found:
                sys.exit("two renders of the same values differ")
            found = new
        tell("renders, twice the same", len(found))
        return found

    def refusals(self):
        """What cannot work is refused, in words."""
        import yaml

        cases = yaml.safe_load((CHECKS / "refusals.yaml").read_text())
        base = CHART / "ci/embedded-values.yaml"
        for case in cases:
            command = [self.helm, "template", "demo", CHART, "--values", base, "--values", "-"]
            done = subprocess.run(command, input=json.dumps(case["values"]), capture_output=True, text=True)
            if done.returncode == 0 or case["says"] not in done.stderr:
                sys.exit(f"{case['values']}\nis not refused with `{case['says']}`:\n{done.stderr}")
        tell("refusals", len(cases))

    def openshift(self):
        """There, nobody says which user and groups a pod has."""
        text = self.render(CHART / "ci/full-values.yaml", "--api-versions", "security.openshift.io/v1")
        if found := re.findall(r"(?:runAsUser|runAsGroup|fsGroup): .*", text):
            sys.exit(f"OpenShift would refuse {found}")
        tell("pods for OpenShift", text.count("runAsNonRoot: true"))


def goldens(rendered, update):
    if update:
        shutil.rmtree(GOLDEN, ignore_errors=True)
        GOLDEN.mkdir()
        for name, text in rendered.items():
            (GOLDEN / f"{name}.yaml").write_text(text)
    known = {path.stem: path.read_text() for path in GOLDEN.glob("*.yaml")}
    for name in sorted(known.keys() | rendered.keys()):
        if known.get(name) != rendered.get(name):
            lines = (text.splitlines() for text in (known.get(name, ""), rendered.get(name, "")))
            print("\n".join(difflib.unified_diff(*lines, "golden", "rendered", lineterm="")))
            sys.exit(f"helm/golden/{name}.yaml is stale; renew it with helm/check.py --update, and look at what changed")
    tell("golden renders", len(known))


def kubernetes(tools):
    files = [*sorted(GOLDEN.glob("*.yaml")), INJECTED]
    for minor in KUBERNETES:
        said = run(tools.python / "kubernetes-validate", "--strict", "--kubernetes-version", minor, *files)
        tell(f"objects of Kubernetes {minor}", said.count(" passed for "))


def custom_resources(tools):
    # Where its packages are.
    script = shutil.copy(CHECKS / "custom_resources.mjs", tools.node)
    said = run("node", script, *sorted(GOLDEN.glob("*.yaml")), cwd=tools.node)
    tell("objects of other kinds", int(said.split()[0]))


def alerts(tools):
    """Every alert is well formed, rings when it should, and has a page."""
    import yaml

    rules = CHART / "files/alerts.yaml"
    run(tools.promtool, "check", "rules", rules)
    folder = tools.folder / "alerts"
    folder.mkdir(exist_ok=True)
    tests = (CHECKS / "alerts_test.yaml").read_text()
    (folder / "alerts_test.yaml").write_text(tests)
    shutil.copy(rules, folder)
    run(tools.promtool, "test", "rules", folder / "alerts_test.yaml")
    names = {rule["alert"] for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]}
    untested = names - set(re.findall(r'alertname="(\w+)"', tests))
    pages = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE))
    if untested or pages != names:
        sys.exit(f"alerts without a test: {untested}; without a section in docs/runbooks.md, or the reverse: {pages ^ names}")
    tell("alerts", len(names))


def metrics():
    """Alerts and dashboard ask for what there is: docs/records.md and docs/reasons.md are held current by tests."""
    there = set(re.findall(r"`(tollgate_\w+)`", (ROOT / "docs/records.md").read_text()))
    there |= {f"{name}_{part}" for name in there for part in ["bucket", "count", "sum"] if name.endswith("_seconds")}
    codes = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/reasons.md").read_text()))
    dashboard = json.loads((CHART / "files/dashboard.json").read_text())
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    texts += [(CHART / "files/alerts.yaml").read_text(), (CHECKS / "alerts_test.yaml").read_text()]
    asked = {name for text in texts for name in re.findall(r"\btollgate_\w+", text)}
    by_code = {code for text in texts for said in re.findall(r'code=~?"([A-Z_|]+)"', text) for code in said.split("|")}
    if unknown := (asked - there) | (by_code - codes):
        sys.exit(f"alerts or dashboard ask for what no gate tells: {sorted(unknown)}")
    tell("metrics and codes that are asked for", len(asked) + len(by_code))


def security(tools):
    command = [tools.python / "checkov", "--directory", GOLDEN, "--framework", "kubernetes"]
    # Offline, and its exit code is ours to judge.
    run_quietly = [*command, "--output", "json", "--soft-fail", "--skip-download", "--quiet", "--compact"]
    found = json.loads(run(*run_quietly))
    failed = [(check["check_id"], check["resource"], check["check_name"]) for check in found["results"]["failed_checks"]]
    used = set()
    for identifier, resource, name in failed:
        why = [rule for rule in EXPLAINED if rule[0] == identifier and re.search(rule[1], resource)]
        if not why:
            sys.exit(f"{identifier} ({name}) fails for {resource}; mend it, or explain it in helm/check.py")
        used.update(why)
    if idle := set(EXPLAINED) - used:
        sys.exit(f"explained in helm/check.py, and nothing fails any more: {sorted(idle)}")
    tell("checks of security passed", found["summary"]["passed"])


def readme(tools, update):
    """The table of values; the generator refuses a value without words."""
    page = CHART / "README.md"
    copy = shutil.copy(page, tools.folder / "README.md")
    run(tools.readme_generator, "--values", CHART / "values.yaml", "--readme", copy)
    rendered = Path(copy).read_text()
    if update:
        page.write_text(rendered)
    if page.read_text() != rendered:
        sys.exit("the table of helm/tollgate/README.md is stale; renew it with helm/check.py --update")
    tell("values in the README", len(re.findall(r"^\| `", rendered, re.MULTILINE)))


def schema():
    """Every value that the schema knows is in values.yaml, and so has words and a default."""
    import yaml

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    known = json.loads((CHART / "values.schema.json").read_text())
    names = set(named(known, known, ""))
    # That one, Helm says to a dependency with a condition.
    missing = [name for name in names - {"enabled"} if not is_said(name, values)]
    if missing:
        sys.exit(f"in values.schema.json, and not in values.yaml: {sorted(missing)}")
    tell("values in the schema", len(names))


def named(known, part, path):
    """The path of each value that a part of the schema knows."""
    part = known["$defs"][part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
    for more in part.get("allOf", []):
        yield from named(known, more, path)
    for name, inner in part.get("properties", {}).items():
        yield f"{path}{name}"
        yield from named(known, inner, f"{path}{name}.")


def is_said(path, values):
    """Whether a value has its place, or one among those that components have in common."""
    component, _, rest = path.partition(".")
    common = f"defaults.{rest}" if component in ["hub", "gate", "sidecar", "injector"] else path
    return any(is_there(path.split("."), values) for path in [path, common])


def is_there(keys, values):
    return not keys or (isinstance(values, dict) and keys[0] in values and is_there(keys[1:], values[keys[0]]))


def version():
    """The chart is of the gate beside it."""
    of = lambda file, pattern: re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)[1]
    gate, chart = of("Cargo.toml", r'^version = "(.+)"'), of("helm/tollgate/Chart.yaml", r"^appVersion: (.+)")
    if gate != chart:
        sys.exit(f"the gate is {gate}, and appVersion of helm/tollgate/Chart.yaml is {chart}")


if __name__ == "__main__":
    main()
