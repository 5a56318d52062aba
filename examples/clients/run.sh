#!/usr/bin/env bash
# Runs the example clients, their tests and their examples, against a real gate:
#
#     examples/clients/run.sh target/release/tollgate
#
# Needs python3 (3.11 or newer, with venv), node (20 or newer) and npm. Leaves nothing running, and
# nothing on disk but what git ignores. Refuses to pass when any step failed.
set -euo pipefail

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    echo "usage: $0 TOLLGATE (the path of the program)" >&2
    exit 2
fi
tollgate=$(realpath "$1")
cd "$(dirname "$0")"
scratch=$(mktemp -d)
gate=

stop_gate() {
    if [ -n "$gate" ] && kill -TERM "$gate" 2>/dev/null; then
        for _ in $(seq 100); do
            kill -0 "$gate" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$gate" 2>/dev/null || true
    fi
}

finish() {
    status=$?
    stop_gate
    if [ "$status" -ne 0 ] && [ -s "$scratch/gate.out" ]; then
        echo "--- what the gate said" >&2
        cat "$scratch/gate.out" >&2
    fi
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Starts the gate of the quickstart, and waits until it has told its address.
start_gate() {
    "$tollgate" quickstart --dir "$scratch/gate" >"$scratch/gate.out" 2>&1 &
    gate=$!
    for _ in $(seq 300); do
        TOLLGATE_GATE=$(sed -n 's|^A gate is running on http://\([^,]*\),.*|\1|p' "$scratch/gate.out")
        if [ -n "$TOLLGATE_GATE" ]; then
            export TOLLGATE_GATE TOLLGATE_LICENSES="$scratch/gate/licenses"
            return
        fi
        kill -0 "$gate" 2>/dev/null || break
        sleep 0.1
    done
    echo "the gate did not start within 30 seconds" >&2
    exit 1
}

python_client() (
    cd python
    python3 -m venv "$scratch/venv"
    # shellcheck source=/dev/null
    . "$scratch/venv/bin/activate"
    pip install --quiet --disable-pip-version-check --requirement requirements.txt
    ./generate.sh
    timeout 120 python -m pytest --quiet
    python example.py "http://$TOLLGATE_GATE" "$TOLLGATE_LICENSES/raw.license"
)

typescript_client() (
    cd typescript
    npm ci --ignore-scripts --no-audit --no-fund
    npm run generate
    npm run build
    timeout 120 npm test
    npm run example -- "http://$TOLLGATE_GATE" "$TOLLGATE_LICENSES/raw.license"
)

start_gate
echo "--- python"
python_client
echo "--- typescript"
typescript_client
