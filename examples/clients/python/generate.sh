#!/bin/sh
# Generates the stubs of the gate's protos into ./tollgate, beside tollgate_client.py.
# Refuses to guess which Python: it uses the `python` in PATH, that of an activated venv.
set -eu
cd "$(dirname "$0")"
exec python -m grpc_tools.protoc --proto_path=../../../proto \
    --python_out=. --pyi_out=. --grpc_python_out=. \
    tollgate/v1/decision.proto tollgate/v1/license.proto
