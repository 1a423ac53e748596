"""A connection to one node, and what the failure of a call means.

A refusal with our ErrorInfo means that nothing happened; anything else leaves the outcome unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from stubs import Stubs

CALL_WAIT_S = 10.0
DOMAIN = "likewise"
MESSAGE_BYTES_MAX = 64 << 20


class Refused(Exception):
    """The node said why not, and nothing happened."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class OutcomeUnknown(Exception):
    """Nobody can say whether the call was done."""


class Client:
    """Calls to one run of one node."""

    def __init__(self, stubs: Stubs, port: int) -> None:
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.likes = stubs.like_grpc.LikeServiceStub(self._channel)
        self.counters = stubs.counter_grpc.CounterServiceStub(self._channel)
        self.cluster = stubs.cluster_grpc.ClusterServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection; calls under way fail."""
        await self._channel.close()


async def call(method: Callable[..., Any], request: Any, wait_s: float = CALL_WAIT_S) -> Any:
    """Makes a unary call; raises `Refused` or `OutcomeUnknown`."""
    try:
        return await method(request, timeout=wait_s)
    except grpc.aio.AioRpcError as error:
        raise meaning(error) from error


def meaning(error: grpc.aio.AioRpcError) -> Refused | OutcomeUnknown:
    """What a failed call says about its outcome."""
    reason = _reason(error)
    if reason is None or reason == "OUTCOME_UNKNOWN":
        return OutcomeUnknown(f"{error.code().name}: {error.details()}")
    return Refused(reason, error.details() or "")


def short_reason(name: str) -> str:
    """The name of a Reason without the prefix that proto demands."""
    return name.removeprefix("REASON_")


def _reason(error: grpc.aio.AioRpcError) -> str | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return short_reason(info.reason)
    return None
