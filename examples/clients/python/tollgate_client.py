"""A thin client of a Tollgate gate, for enforcement points written in Python.

It fails closed: only a decision that says ALLOW is allowed, and whatever kept the gate from
deciding is raised as CouldNotDecide, which the caller treats as a denial. It never retries and
never waits longer than its deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import urlsplit

import grpc

from tollgate.v1 import decision_pb2 as pb
from tollgate.v1.decision_pb2_grpc import DecisionServiceStub

Response = TypeVar("Response")


class CouldNotDecide(Exception):
    """The gate gave no decision. Treat it as a denial, one that may be asked again."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision of the gate: allowed, with obligations to fulfil, or denied, with reasons."""

    allowed: bool
    decision_id: str
    """Also the id of the decision's audit record."""
    reasons: tuple[pb.Reason, ...]
    obligations: tuple[pb.Obligation, ...]

    @property
    def codes(self) -> list[str]:
        """The codes of the reasons, such as `PURPOSE_NOT_LICENSED`."""
        return [reason.code for reason in self.reasons]

    def __bool__(self) -> bool:
        # Any other object would be true, and `if gate.check(...)` would let everything pass.
        return self.allowed

    @classmethod
    def of(cls, response: pb.CheckResponse) -> Self:
        """Reads a response. Unspecified, or a decision newer than this client, is not an allow."""
        return cls(
            allowed=response.decision == pb.DECISION_ALLOW,
            decision_id=response.decision_id,
            reasons=tuple(response.reasons),
            obligations=tuple(response.obligations),
        )


class Gate:
    """A connection to a gate. Safe to share between threads; close it, or use it in a `with`.

    `url` is `http://HOST:PORT` for clear text, which suits a gate on this machine only, or
    `https://HOST:PORT`. `timeout` is the deadline of each call, in seconds. `credentials` say
    whom to trust and who we are (mTLS); without them, the authorities that gRPC ships with.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 1.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout is `{timeout}`; it must be a number of seconds over 0")
        self._timeout = timeout
        self._channel = _channel(url, credentials)
        self._stub = DecisionServiceStub(self._channel)

    def check(self, question: pb.CheckRequest) -> Answer:
        """Asks one question. Raises CouldNotDecide."""
        return Answer.of(self._call(self._stub.Check, question))

    def check_batch(
        self,
        questions: Sequence[pb.CheckRequest],
        semantic: pb.EvaluationSemantic = pb.EVALUATION_SEMANTIC_EXECUTE_ALL,
    ) -> list[Answer]:
        """Asks several questions, answered in their order. Raises CouldNotDecide.

        Where the semantic stops early there are fewer answers than questions. A question
        without an answer was not decided: it is not allowed.
        """
        batch = pb.CheckBatchRequest(requests=questions, semantic=semantic)
        return [Answer.of(response) for response in self._call(self._stub.CheckBatch, batch).responses]

    def close(self) -> None:
        """Ends the connection, and calls that are under way."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise CouldNotDecide(error.code(), error.details() or "no details") from error


def _channel(url: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return grpc.secure_channel(parts.netloc, credentials or grpc.ssl_channel_credentials())
    if parts.scheme == "http" and credentials is None:
        return grpc.insecure_channel(parts.netloc)
    raise ValueError(
        f"`{url}` is not the address of a gate: write `https://HOST:PORT`, or `http://HOST:PORT` without credentials"
    )
