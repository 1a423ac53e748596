"""What is measured, one module for each kind; each function makes one round and returns its figures by name."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from nodes import Node, Tools
from processes import emptied


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    seconds: float
    likers: int
    likers_a_side: int
    replicated: int
    posts: int
    # Likes a second while a post grows.
    growth_rate: int
    # From the last write until the disk is looked at.
    rest_seconds: float
    # Until a checkpoint holds all that was written before, and memory is given back.
    settle_seconds: float
    settings: dict


FULL = Sizes(
    seconds=3,
    likers=10_000_000,
    likers_a_side=1_000_000,
    replicated=1_000_000,
    posts=1_000_000,
    growth_rate=200_000,
    rest_seconds=30,
    settle_seconds=65,
    settings={},
)
QUICK = Sizes(
    seconds=1,
    likers=400_000,
    likers_a_side=50_000,
    replicated=100_000,
    posts=20_000,
    growth_rate=100_000,
    rest_seconds=6,
    settle_seconds=12,
    settings={"CHECKPOINT__INTERVAL_MS": 5_000},
)


@dataclass
class Round:
    """One round: where it keeps its data, and what the machine is asked for."""

    tools: Tools
    sizes: Sizes
    folder: Path
    number: int

    def path(self, name):
        return self.folder / name

    @contextlib.contextmanager
    def node(self, name, **options):
        """A node on an empty folder, which is gone afterwards."""
        folder = emptied(self.path(name)) / "data"
        settings = {**self.sizes.settings, **options.pop("settings", {})}
        node = Node(self.tools, folder, settings=settings, **options)
        try:
            yield node
        finally:
            node.kill()
            emptied(self.path(name))

    def rest(self):
        time.sleep(self.sizes.rest_seconds)

    def settle(self):
        time.sleep(self.sizes.settle_seconds)
