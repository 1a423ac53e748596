"""What is written: likes by Zipf, storms on few posts, repeats, unlikes and views.

Pure: chooses items from a seeded generator and from what the record knows, and knows nothing of
nodes or connections.
"""

from __future__ import annotations

import enum
import itertools
import random

from record import Item, Kind, Record

UNLIKE_SHARE = 0.18
VIEW_SHARE = 0.14
"""Of all items; the rest are likes."""
REPEAT_SHARE = 0.82
"""Of the likes of viral posts: by users who like them already."""
UNLIKE_OF_A_LIKER_SHARE = 0.85
UNLIKE_BY_ID_SHARE = 0.2
VIRAL_POSTS = 5
TRIES = 8


class Phase(enum.Enum):
    """How the crowd behaves: share of the items that go to viral posts, and to the one of them
    that everybody speaks of."""

    NORMAL = (0.05, 0.0)
    VIRAL = (0.6, 0.0)
    TSUNAMI = (0.9, 0.85)


class Workload:
    """Chooses what to write next."""

    def __init__(self, seed: int, posts: int, users: int, record: Record) -> None:
        self._random = random.Random(seed)
        self._record = record
        self._users = users
        self._posts = [f"post-{number}" for number in range(posts)]
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(posts)))
        self._phase = Phase.NORMAL
        self._storm = 0

    def enter(self, phase: Phase) -> None:
        """Goes to another phase; every tsunami has a post of its own."""
        self._phase = phase
        self._storm += phase is Phase.TSUNAMI

    def item(self) -> Item:
        """The next item."""
        post = self._post()
        draw = self._random.random()
        if draw < UNLIKE_SHARE:
            return self._unlike(post)
        if draw < UNLIKE_SHARE + VIEW_SHARE:
            counter = "views" if self._random.random() < 0.9 else "shares"
            delta = self._random.choice((1, 1, 1, 2, 5, -1))
            return Item(Kind.ADD, post, counter=counter, delta=delta)
        return Item(Kind.LIKE, post, self._liker(post))

    def chance(self, share: float) -> bool:
        """Whether something happens that happens in a share of the cases."""
        return self._random.random() < share

    def _post(self) -> str:
        viral, hottest = self._phase.value
        if self._random.random() < viral:
            if self._random.random() < hottest:
                return f"tsunami-{self._storm}"
            return f"viral-{self._random.randrange(VIRAL_POSTS)}"
        return self._random.choices(self._posts, cum_weights=self._weights)[0]

    def _liker(self, post: str) -> str:
        if not post.startswith("post-"):
            if self._random.random() < REPEAT_SHARE:
                return self._fan(post) or self._anyone()
            for _ in range(TRIES):
                user = self._anyone()
                if not self._record.is_liker((post, user)):
                    return user
        return self._anyone()

    def _unlike(self, post: str) -> Item:
        user = None
        if self._random.random() < UNLIKE_OF_A_LIKER_SHARE:
            user = self._fan(post)
        user = user or self._anyone()
        ids = self._record.live_ids((post, user))
        if ids and self._random.random() < UNLIKE_BY_ID_SHARE:
            return Item(Kind.UNLIKE, post, user, like_id=self._random.choice(ids))
        return Item(Kind.UNLIKE, post, user)

    def _fan(self, post: str) -> str | None:
        """Somebody who likes the post, as far as the record knows; None when hard to find."""
        fans = self._record.fans.get(post, [])
        for _ in range(TRIES if fans else 0):
            user = self._random.choice(fans)
            if self._record.is_liker((post, user)):
                return user
        return None

    def _anyone(self) -> str:
        return f"u{self._random.randrange(self._users)}"
