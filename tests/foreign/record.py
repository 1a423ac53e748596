"""The record of what was acknowledged: the oracle that every node is held against.

A user is a liker of a post if and only if some acknowledged like's id was named neither as removed
by an acknowledged unlike nor as replaced by an acknowledged like. Where the outcome of a call stays
unknown, what it touched may be either. The order in which answers came does not matter.

Pure: knows nothing of nodes, connections or time.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]
"""A post and a user."""
CounterKey = tuple[str, str]
"""A post and a counter's name."""
VIRAL_PREFIXES = ("viral-", "tsunami-")


class Kind(enum.Enum):
    """What an item does."""

    LIKE = "like"
    UNLIKE = "unlike"
    ADD = "add"


class Carrier(enum.Enum):
    """How items reach a node."""

    UNARY = "unary"
    STREAM = "stream"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Item:
    """One like, unlike or add. A like id is what an unlike names beside what the node sees."""

    kind: Kind
    post: str
    user: str = ""
    counter: str = ""
    delta: int = 0
    like_id: str = ""

    @property
    def pair(self) -> Pair:
        """The post and the user of a like or unlike."""
        return self.post, self.user


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said of an item: the id it gave, and those it removed or replaced."""

    like_id: str = ""
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request under one request id; a retry sends the same message again."""

    request_id: str
    region: str
    epoch: str
    carrier: Carrier
    items: tuple[Item, ...]
    message: Any = None


@dataclass
class Figures:
    """How much was acknowledged, and how."""

    carried: Counter[Carrier] = field(default_factory=Counter)
    unlikes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    resolved: int = 0
    viral_likes: int = 0
    viral_repeats: int = 0

    @property
    def operations(self) -> int:
        """All acknowledged operations."""
        return sum(self.carried.values())


@dataclass
class CutLedger:
    """What was acknowledged in each region during one cut."""

    writes: Counter[str] = field(default_factory=Counter)
    liked: defaultdict[str, set[Pair]] = field(default_factory=lambda: defaultdict(set))

    def both_sides(self, near: Sequence[str], far: Sequence[str]) -> int:
        """Pairs liked on both sides."""
        def side(regions: Sequence[str]) -> set[Pair]:
            return set().union(*(self.liked[region] for region in regions))

        return len(side(near) & side(far))


class Record:
    """Everything that was acknowledged, and everything whose outcome is unknown."""

    def __init__(self) -> None:
        self.pair_of: dict[str, Pair] = {}
        self.ids_of: defaultdict[Pair, list[str]] = defaultdict(list)
        self.dead: set[str] = set()
        self.pairs: set[Pair] = set()
        self.counters: Counter[CounterKey] = Counter()
        self.fans: defaultdict[str, list[str]] = defaultdict(list)
        self.unknown: dict[str, Attempt] = {}
        self.figures = Figures()
        self.problems: list[str] = []
        self.cut: CutLedger | None = None

    def acknowledge(self, attempt: Attempt, answers: Sequence[Answer | None]) -> None:
        """Takes the answer to a request; None stands for an item that was refused."""
        if len(answers) != len(attempt.items):
            self.problems.append(
                f"{attempt.region} gave {len(answers)} answers to {len(attempt.items)} items"
            )
            self.lose(attempt)
            return
        taken = 0
        for item, answer in zip(attempt.items, answers):
            if answer is not None:
                self._take(attempt.region, item, answer)
                taken += 1
        self.figures.carried[attempt.carrier] += taken
        if self.cut is not None:
            self.cut.writes[attempt.region] += taken

    def lose(self, attempt: Attempt) -> None:
        """Notes a request whose outcome nobody can say."""
        self.unknown[attempt.request_id] = attempt
        self.figures.unknown += len(attempt.items)

    def resolve(self, attempt: Attempt, answers: Sequence[Answer | None]) -> None:
        """Takes the answer to a retry of a request whose outcome was unknown."""
        del self.unknown[attempt.request_id]
        self.figures.resolved += len(attempt.items)
        self.acknowledge(attempt, answers)

    def is_liker(self, pair: Pair) -> bool:
        """What the acknowledged answers say of a pair, unknown outcomes aside."""
        return bool(self.live_ids(pair))

    def live_ids(self, pair: Pair) -> list[str]:
        """Acknowledged likes of a pair that nothing acknowledged removed or replaced."""
        return [like_id for like_id in self.ids_of.get(pair, ()) if like_id not in self.dead]

    def uncertain_pairs(self) -> set[Pair]:
        """Pairs that a request with an unknown outcome touched."""
        return {item.pair for item in self._unknown_items() if item.kind is not Kind.ADD}

    def counter_bounds(self) -> dict[CounterKey, tuple[int, int]]:
        """The least and the most that each counter can be."""
        bounds = {key: (value, value) for key, value in self.counters.items()}
        for item in self._unknown_items():
            if item.kind is Kind.ADD:
                low, high = bounds.get((item.post, item.counter), (0, 0))
                bounds[item.post, item.counter] = (
                    low + min(item.delta, 0), high + max(item.delta, 0),
                )
        return bounds

    def all_pairs(self) -> set[Pair]:
        """Every pair that anything acknowledged or unknown touched."""
        return self.pairs | self.uncertain_pairs()

    def _unknown_items(self) -> Iterator[Item]:
        for attempt in self.unknown.values():
            yield from attempt.items

    def _take(self, region: str, item: Item, answer: Answer) -> None:
        if item.kind is Kind.ADD:
            self.counters[item.post, item.counter] += item.delta
            return
        if item.kind is Kind.LIKE:
            self._take_like(region, item.pair, answer)
        else:
            self.figures.unlikes += 1
        self.pairs.add(item.pair)
        for like_id in answer.gone:
            self._check_meaning(like_id, item.pair)
            self.dead.add(like_id)

    def _take_like(self, region: str, pair: Pair, answer: Answer) -> None:
        if not answer.like_id:
            self.problems.append(f"{region} acknowledged a like of {pair} without an id")
            return
        if pair[0].startswith(VIRAL_PREFIXES):
            self.figures.viral_likes += 1
            self.figures.viral_repeats += self.is_liker(pair)
        self._check_meaning(answer.like_id, pair)
        # An id twice for one pair: both callers shared one like that was not synced yet.
        if answer.like_id not in self.pair_of:
            self.pair_of[answer.like_id] = pair
            if pair not in self.ids_of:
                self.fans[pair[0]].append(pair[1])
            self.ids_of[pair].append(answer.like_id)
        if self.cut is not None:
            self.cut.liked[region].add(pair)

    def _check_meaning(self, like_id: str, pair: Pair) -> None:
        known = self.pair_of.get(like_id)
        if known is not None and known != pair:
            self.problems.append(f"like id {like_id} means {known} and {pair}")
