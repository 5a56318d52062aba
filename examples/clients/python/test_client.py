"""The client against a real gate: the one of `tollgate quickstart`, with its licenses.

TOLLGATE_GATE is its HOST:PORT, TOLLGATE_LICENSES its folder of licenses; ../run.sh sets both.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from example import question
from tollgate.v1 import decision_pb2 as pb
from tollgate_client import Answer, CouldNotDecide, Gate

URL = f"http://{os.environ['TOLLGATE_GATE']}"
RAW = Path(os.environ["TOLLGATE_LICENSES"], "raw.license").read_text(encoding="ascii").strip()
ALLOWED = question(RAW, "AcademicResearch")
DENIED = question(RAW, "Marketing")


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with Gate(URL, timeout=10) as gate:
        yield gate


def test_a_licensed_use_is_allowed(gate: Gate) -> None:
    answer = gate.check(ALLOWED)
    assert answer.allowed
    assert answer.decision_id
    assert answer.reasons == ()


def test_an_unlicensed_purpose_is_denied_with_its_code(gate: Gate) -> None:
    answer = gate.check(DENIED)
    assert not answer.allowed
    assert answer.codes == ["PURPOSE_NOT_LICENSED"]
    assert answer.reasons[0].reason_user


def test_a_token_of_garbage_is_a_denial_and_no_error(gate: Gate) -> None:
    answer = gate.check(question("garbage", "AcademicResearch"))
    assert not answer.allowed
    assert answer.codes == ["LICENSE_MALFORMED"]


def test_a_batch_is_answered_in_order(gate: Gate) -> None:
    answers = gate.check_batch([DENIED, ALLOWED])
    assert [answer.allowed for answer in answers] == [False, True]


def test_a_batch_may_end_at_its_first_denial(gate: Gate) -> None:
    semantic = pb.EVALUATION_SEMANTIC_DENY_ON_FIRST_DENY
    answers = gate.check_batch([ALLOWED, DENIED, ALLOWED], semantic)
    assert [answer.allowed for answer in answers] == [True, False]


def test_a_batch_that_is_no_request_could_not_be_decided(gate: Gate) -> None:
    with pytest.raises(CouldNotDecide) as raised:
        gate.check_batch([])
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_gate_that_is_not_there_could_not_decide() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Gate(f"http://127.0.0.1:{port}", timeout=10) as gate, pytest.raises(CouldNotDecide) as raised:
        gate.check(ALLOWED)
    assert raised.value.code == grpc.StatusCode.UNAVAILABLE


def test_a_gate_that_is_silent_could_not_decide() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Gate(f"http://127.0.0.1:{port}", timeout=0.1) as gate, pytest.raises(CouldNotDecide) as raised:
            gate.check(ALLOWED)
    assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_deadline_that_passed_could_not_decide() -> None:
    # gRPC rounds the deadline up to milliseconds, enough for one answer; not for a thousand.
    with Gate(URL, timeout=1e-6) as gate, pytest.raises(CouldNotDecide) as raised:
        gate.check_batch([ALLOWED] * 1000)
    assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_tls_that_the_gate_does_not_speak_could_not_decide() -> None:
    with Gate(URL.replace("http://", "https://"), timeout=10) as gate, pytest.raises(CouldNotDecide):
        gate.check(ALLOWED)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_no_call_goes_without_a_deadline(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Gate(URL, timeout=timeout)


@pytest.mark.parametrize("url", ["127.0.0.1:9191", "ftp://127.0.0.1:9191", ""])
def test_an_address_says_whether_it_is_in_clear_text(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of a gate"):
        Gate(url)


# A gate sends neither of these; a proxy, a fault or a later version might.
@pytest.mark.parametrize("decision", [pb.DECISION_UNSPECIFIED, pb.DECISION_DENY, 99])
def test_only_allow_is_an_allow(decision: int) -> None:
    answer = Answer.of(pb.CheckResponse.FromString(bytes([0x08, decision])))
    assert not answer.allowed
    assert not answer


def test_an_allow_brings_its_obligations() -> None:
    duty = pb.Obligation(id="tell", type="notify")
    answer = Answer.of(pb.CheckResponse(decision=pb.DECISION_ALLOW, obligations=[duty]))
    assert answer
    assert answer.obligations == (duty,)
