"""Asks a running gate two questions, one that it allows and one that it denies.

Run as `python example.py http://127.0.0.1:9191 tollgate-quickstart/licenses/raw.license`.
"""

import sys
from pathlib import Path

from tollgate.v1.decision_pb2 import CheckRequest, Resource, Subject
from tollgate_client import CouldNotDecide, Gate


def question(token: str, purpose: str) -> CheckRequest:
    """May Ana of Acme read the EU's orders for this purpose?"""
    return CheckRequest(
        token=token,
        subject=Subject(id="ana", organization="acme", roles=["analyst"]),
        action="read",
        resource=Resource(id="sales/eu/orders"),
        purpose=purpose,
    )


def main(url: str, license_file: str) -> int:
    token = Path(license_file).read_text(encoding="ascii").strip()
    with Gate(url) as gate:
        for purpose in ("AcademicResearch", "Marketing"):
            try:
                answer = gate.check(question(token, purpose))
            except CouldNotDecide as error:
                print(f"{purpose}: denied, for no decision could be had ({error})")
                return 1
            print(f"{purpose}: {'allowed' if answer.allowed else 'denied'}")
            for obligation in answer.obligations:
                print(f"  to be done: {obligation.type}")
            for reason in answer.reasons:
                print(f"  {reason.code}: {reason.reason_user}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: example.py GATE LICENSE_FILE")
    sys.exit(main(sys.argv[1], sys.argv[2]))
