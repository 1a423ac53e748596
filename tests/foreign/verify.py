"""The judgement: what every node answers, held against the record.

Every pair of post and user that the record knows is read from every node, and the count of every
post. A like of a pair that the record does not know would show in the count of its post: the count
must be exactly the number of pairs that the same node says are likes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from client import Client, call
from record import CounterKey, Pair, Record
from stubs import Stubs

POSTS_A_READ = 500
READS_IN_FLIGHT = 32
EXAMPLES_MAX = 5


@dataclass
class Answers:
    """What one node said of everything that the record knows."""

    likes: dict[Pair, bool] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    counters: dict[CounterKey, int] = field(default_factory=dict)


@dataclass
class Judgement:
    """What is wrong; nothing, when the run is good."""

    lost: int = 0
    phantom: int = 0
    equal: bool = True
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.phantom or self.problems) and self.equal


def judge(record: Record, answers: Mapping[str, Answers]) -> Judgement:
    """Holds the answers of each region's node against the record and against each other."""
    judgement = Judgement()
    uncertain = record.uncertain_pairs()
    bounds = record.counter_bounds()
    for region, said in answers.items():
        problems = [
            *_judge_likes(record, uncertain, said, judgement),
            *_judge_counts(said),
            *_judge_counters(bounds, said),
        ]
        judgement.problems += [f"{region}: {problem}" for problem in problems[:EXAMPLES_MAX]]
        if len(problems) > EXAMPLES_MAX:
            judgement.problems.append(f"{region}: and {len(problems) - EXAMPLES_MAX} more")
    said_by = list(answers.values())
    judgement.equal = all(said == said_by[0] for said in said_by[1:])
    return judgement


def _judge_likes(
    record: Record, uncertain: set[Pair], said: Answers, judgement: Judgement
) -> Iterable[str]:
    for pair in record.all_pairs():
        likes = said.likes.get(pair)
        if likes is None:
            yield f"no answer about {pair}"
            continue
        if pair in uncertain or likes == record.is_liker(pair):
            continue
        if likes:
            judgement.phantom += 1
            yield f"{pair} is a like that is nowhere acknowledged, or was removed"
        else:
            judgement.lost += 1
            yield f"{pair} was acknowledged and never removed, and is no like"


def _judge_counts(said: Answers) -> Iterable[str]:
    likers = Counter(post for (post, _), likes in said.likes.items() if likes)
    for post in said.counts.keys() | likers.keys():
        if said.counts.get(post) != likers[post]:
            yield f"{post} counts {said.counts.get(post)}, and {likers[post]} users like it"


def _judge_counters(
    bounds: Mapping[CounterKey, tuple[int, int]], said: Answers
) -> Iterable[str]:
    for key in bounds.keys() | said.counters.keys():
        low, high = bounds.get(key, (0, 0))
        value = said.counters.get(key, 0)
        if not low <= value <= high:
            yield f"counter {key} is {value}, not {low} to {high}"


def hide_from_answers(record: Record, answers: Mapping[str, Answers]) -> dict[str, Answers]:
    """The same answers with one acknowledged like hidden, alike on all nodes."""
    pair = _certain_like(record)
    return {
        region: dataclasses.replace(
            said,
            likes=said.likes | {pair: False},
            counts=said.counts | {pair[0]: said.counts[pair[0]] - 1},
        )
        for region, said in answers.items()
    }


def bites(record: Record, answers: Mapping[str, Answers], found: Judgement) -> bool:
    """Whether the judgement is worse, as it must be, when one acknowledged like is hidden: once
    from the answers, and once from the record. `found` is the judgement with nothing hidden."""
    hidden = judge(record, hide_from_answers(record, answers))
    pair = _certain_like(record)
    ids = record.live_ids(pair)
    record.dead.update(ids)
    forgotten = judge(record, answers)
    record.dead.difference_update(ids)
    return hidden.lost > found.lost and forgotten.phantom > found.phantom


def _certain_like(record: Record) -> Pair:
    uncertain = record.uncertain_pairs()
    return next(
        pair for pair in sorted(record.ids_of)
        if pair not in uncertain and record.is_liker(pair)
    )


async def read_back(stubs: Stubs, client: Client, record: Record) -> Answers:
    """Reads everything that the record knows from one node."""
    answers = Answers()
    posts_of: defaultdict[str, list[str]] = defaultdict(list)
    for post, user in sorted(record.all_pairs()):
        posts_of[user].append(post)
    reads: list[Callable[[], Awaitable[None]]] = [
        partial(_read_likes, stubs, client, user, posts[start:start + POSTS_A_READ], answers)
        for user, posts in posts_of.items()
        for start in range(0, len(posts), POSTS_A_READ)
    ]
    counted = sorted({post for post, _ in record.counter_bounds()})
    posts = sorted({post for post, _ in record.all_pairs()} | set(counted))
    reads += [
        partial(_read_counts, stubs, client, posts[start:start + POSTS_A_READ], answers)
        for start in range(0, len(posts), POSTS_A_READ)
    ]
    reads += [partial(_read_counters, stubs, client, post, answers) for post in counted]
    await _in_turn(reads)
    return answers


async def _in_turn(reads: list[Callable[[], Awaitable[None]]]) -> None:
    waiting = iter(reads)

    async def work() -> None:
        for read in waiting:
            await read()

    await asyncio.gather(*(work() for _ in range(READS_IN_FLIGHT)))


async def _read_likes(
    stubs: Stubs, client: Client, user: str, posts: list[str], answers: Answers
) -> None:
    request = stubs.like.BatchGetPostsRequest(posts=posts, viewer=user)
    response = await call(client.likes.BatchGetPosts, request)
    for post, likes in zip(posts, response.likes, strict=True):
        answers.likes[post, user] = likes.viewer_likes


async def _read_counts(
    stubs: Stubs, client: Client, posts: list[str], answers: Answers
) -> None:
    response = await call(client.likes.BatchGetPosts, stubs.like.BatchGetPostsRequest(posts=posts))
    for post, likes in zip(posts, response.likes, strict=True):
        answers.counts[post] = likes.count


async def _read_counters(stubs: Stubs, client: Client, post: str, answers: Answers) -> None:
    response = await call(
        client.counters.GetCounters, stubs.counter.GetCountersRequest(post=post)
    )
    for counter in response.counters:
        answers.counters[post, counter.counter] = counter.value
