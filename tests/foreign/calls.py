"""Items as requests of the interface, and answers as the record takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from client import CALL_WAIT_S, Client, OutcomeUnknown, Refused, call, short_reason
from record import Answer, Attempt, Carrier, Item, Kind, Record
from stubs import Stubs

RETRY_WAIT_S = 20.0


def unary_message(stubs: Stubs, item: Item, request_id: str, token: str = "") -> Any:
    """The request of a unary call."""
    if item.kind is Kind.LIKE:
        return stubs.like.LikeRequest(
            post=item.post, user=item.user, request_id=request_id, token=token
        )
    if item.kind is Kind.UNLIKE:
        return stubs.like.UnlikeRequest(
            post=item.post, user=item.user, like_id=item.like_id, request_id=request_id,
            token=token,
        )
    return stubs.counter.AddRequest(
        post=item.post, counter=item.counter, delta=item.delta, request_id=request_id, token=token
    )


def batch_message(stubs: Stubs, items: Sequence[Item], request_id: str) -> Any:
    """The columns of a batch. Users travel as integers where all have the form u<number>."""
    like = stubs.like
    operation = {
        Kind.LIKE: like.OPERATION_LIKE, Kind.UNLIKE: like.OPERATION_UNLIKE,
        Kind.ADD: like.OPERATION_ADD,
    }
    posts = {post: index for index, post in enumerate(dict.fromkeys(i.post for i in items))}
    adds = [item for item in items if item.kind is Kind.ADD]
    counters = {name: index for index, name in enumerate(dict.fromkeys(i.counter for i in adds))}
    batch = like.WriteBatch(
        request_id=request_id,
        posts=list(posts),
        post_indexes=[posts[item.post] for item in items],
        operations=[operation[item.kind] for item in items],
        counters=list(counters),
        counter_indexes=[counters[item.counter] for item in adds],
        deltas=[item.delta for item in adds],
        include_like_ids=True,
    )
    users = [item.user for item in items if item.kind is not Kind.ADD]
    if users and all(user[:1] == "u" and user[1:].isdecimal() for user in users):
        batch.user_integers.prefix = "u"
        batch.user_integers.values.extend(int(user[1:]) for user in users)
    elif users:
        texts = [user.encode() for user in users]
        batch.user_strings.data = b"".join(texts)
        batch.user_strings.lengths.extend(map(len, texts))
    return batch


def unary_answer(item: Item, response: Any) -> Answer:
    """What a unary response says."""
    if item.kind is Kind.LIKE:
        return Answer(response.like_id, tuple(response.replaced_like_ids))
    if item.kind is Kind.UNLIKE:
        return Answer(gone=tuple(response.removed_like_ids))
    return Answer()


def batch_answers(
    stubs: Stubs, record: Record, attempt: Attempt, result: Any
) -> list[Answer | None]:
    """What the result of a batch says of each item; notes outcomes that fit no item."""
    like = stubs.like
    fitting = {
        Kind.LIKE: (like.OUTCOME_LIKED, like.OUTCOME_LIKED_AGAIN),
        Kind.UNLIKE: (like.OUTCOME_UNLIKED, like.OUTCOME_NOT_LIKED),
        Kind.ADD: (like.OUTCOME_ADDED,),
    }
    for error in result.errors:
        record.figures.refused[short_reason(stubs.types.Reason.Name(error.reason))] += 1
    answers: list[Answer | None] = []
    for item, outcome, ids in zip(attempt.items, result.outcomes, result.like_ids):
        if outcome == like.OUTCOME_REFUSED:
            answers.append(None)
            continue
        if outcome not in fitting[item.kind]:
            name = like.Outcome.Name(outcome)
            record.problems.append(f"{attempt.region} answered {name} to {item}")
        answers.append(Answer(ids.like_id, tuple(ids.removed_like_ids)))
    return answers


async def send(stubs: Stubs, client: Client, record: Record, attempt: Attempt) -> Any:
    """Makes a unary or batch call and records what became of it. The response, or None where the
    call was refused or its outcome is unknown."""
    try:
        response = await _call(stubs, client, attempt)
    except Refused as refusal:
        record.figures.refused[refusal.reason] += 1
        return None
    except OutcomeUnknown:
        record.lose(attempt)
        return None
    record.acknowledge(attempt, _answers(stubs, record, attempt, response))
    return response


async def retry(stubs: Stubs, client: Client, record: Record, attempt: Attempt) -> None:
    """Sends a request of unknown outcome again; it stays unknown unless it is answered."""
    try:
        response = await _call(stubs, client, attempt, RETRY_WAIT_S)
    except Refused as refusal:
        record.figures.refused[refusal.reason] += 1
        if refusal.reason == "REQUEST_ID_REUSED":
            record.problems.append(f"{attempt.region} refused the retry of {attempt}")
        return
    except OutcomeUnknown:
        return
    record.resolve(attempt, _answers(stubs, record, attempt, response))


def _answers(
    stubs: Stubs, record: Record, attempt: Attempt, response: Any
) -> list[Answer | None]:
    if attempt.carrier is Carrier.UNARY:
        return [unary_answer(attempt.items[0], response)]
    return batch_answers(stubs, record, attempt, response.result)


async def _call(
    stubs: Stubs, client: Client, attempt: Attempt, wait_s: float = CALL_WAIT_S
) -> Any:
    if attempt.carrier is not Carrier.UNARY:
        # A batch of a stream is known by its request id alone, so it may be retried as a call.
        request = stubs.like.BatchWriteRequest(batch=attempt.message)
        return await call(client.likes.BatchWrite, request, wait_s)
    method = {
        Kind.LIKE: client.likes.Like, Kind.UNLIKE: client.likes.Unlike,
        Kind.ADD: client.counters.Add,
    }[attempt.items[0].kind]
    return await call(method, attempt.message, wait_s)
