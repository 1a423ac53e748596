"""The workload and its way into columns: shares as promised, and nothing lost on the way."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from calls import batch_message
from record import Answer, Attempt, Carrier, Item, Kind, Record
from stubs import Stubs, generate
from workload import Phase, Workload

PROTO = Path(__file__).resolve().parents[2] / "proto"


class WorkloadTest(unittest.TestCase):
    def test_shares_are_as_promised(self) -> None:
        record = Record()
        workload = Workload(7, posts=200, users=5_000, record=record)
        for number in range(30_000):
            workload.enter(Phase.VIRAL) if number == 10_000 else None
            item = workload.item()
            gone: tuple[str, ...] = ()
            like_id = ""
            if item.kind is not Kind.ADD:
                gone = tuple(record.live_ids(item.pair))
            if item.kind is Kind.LIKE:
                like_id = f"like-{number}"
            attempt = Attempt(f"{number}", "eu", "epoch", Carrier.UNARY, (item,))
            record.acknowledge(attempt, [Answer(like_id, gone)])
        figures = record.figures
        self.assertTrue(0.15 <= figures.unlikes / figures.operations <= 0.21)
        self.assertTrue(0.65 <= figures.viral_repeats / figures.viral_likes <= 0.85)

    def test_a_seed_gives_the_same_items(self) -> None:
        first, second = (Workload(3, posts=50, users=50, record=Record()) for _ in range(2))
        self.assertEqual([first.item() for _ in range(500)], [second.item() for _ in range(500)])


class BatchTest(unittest.TestCase):
    stubs: Stubs

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.stubs = generate(PROTO, Path(folder.name))

    def test_columns_hold_the_items_in_order(self) -> None:
        items = [
            Item(Kind.LIKE, "p1", "u12"), Item(Kind.ADD, "p2", counter="views", delta=-3),
            Item(Kind.UNLIKE, "p1", "u7"),
        ]
        batch = batch_message(self.stubs, items, "request")
        self.assertEqual(list(batch.posts), ["p1", "p2"])
        self.assertEqual(list(batch.post_indexes), [0, 1, 0])
        self.assertEqual(list(batch.operations), [1, 3, 2])
        self.assertEqual((batch.user_integers.prefix, list(batch.user_integers.values)),
                         ("u", [12, 7]))
        self.assertEqual((list(batch.counters), list(batch.counter_indexes), list(batch.deltas)),
                         (["views"], [0], [-3]))
        self.assertTrue(batch.include_like_ids)

    def test_users_of_other_forms_travel_as_text(self) -> None:
        items = [Item(Kind.LIKE, "p", "жан"), Item(Kind.LIKE, "p", "u1")]
        batch = batch_message(self.stubs, items, "request")
        self.assertEqual(batch.user_strings.data.decode(), "жанu1")
        self.assertEqual(list(batch.user_strings.lengths), [6, 2])


if __name__ == "__main__":
    unittest.main()
