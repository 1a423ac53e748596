"""The record: what follows from answers, whatever their order."""

from __future__ import annotations

import itertools
import unittest

from record import Answer, Attempt, Carrier, CutLedger, Item, Kind, Record

PAIR = ("post", "user")


def attempt(*items: Item, request_id: str = "r", region: str = "eu") -> Attempt:
    return Attempt(request_id, region, "epoch", Carrier.UNARY, items)


def like(post: str = "post", user: str = "user") -> Item:
    return Item(Kind.LIKE, post, user)


def unlike() -> Item:
    return Item(Kind.UNLIKE, "post", "user")


def add(delta: int) -> Item:
    return Item(Kind.ADD, "post", counter="views", delta=delta)


class RecordTest(unittest.TestCase):
    def check_any_order(self, steps: list[tuple[Item, Answer]], liker: bool) -> None:
        for order in itertools.permutations(steps):
            record = Record()
            for item, answer in order:
                record.acknowledge(attempt(item), [answer])
            self.assertEqual(record.is_liker(PAIR), liker, order)
            self.assertEqual(record.problems, [])

    def test_an_acknowledged_like_makes_a_liker(self) -> None:
        self.check_any_order([(like(), Answer("a"))], True)

    def test_an_unlike_that_names_the_like_ends_it(self) -> None:
        self.check_any_order([(like(), Answer("a")), (unlike(), Answer(gone=("a",)))], False)

    def test_an_unlike_that_saw_nothing_ends_nothing(self) -> None:
        self.check_any_order([(like(), Answer("a")), (unlike(), Answer())], True)

    def test_a_repeated_like_survives_the_unlike_of_the_first(self) -> None:
        self.check_any_order([
            (like(), Answer("a")), (like(), Answer("b", ("a",))), (unlike(), Answer(gone=("a",))),
        ], True)

    def test_likes_on_two_sides_need_both_removed(self) -> None:
        both = [(like(), Answer("a")), (like(), Answer("b"))]
        self.check_any_order([*both, (unlike(), Answer(gone=("a",)))], True)
        self.check_any_order([*both, (unlike(), Answer(gone=("a", "b")))], False)

    def test_a_shared_answer_is_one_like(self) -> None:
        self.check_any_order([
            (like(), Answer("a")), (like(), Answer("a")), (unlike(), Answer(gone=("a",))),
        ], False)

    def test_an_id_with_two_meanings_is_a_problem(self) -> None:
        record = Record()
        record.acknowledge(attempt(like()), [Answer("a")])
        record.acknowledge(attempt(like(user="other")), [Answer("a")])
        self.assertEqual(len(record.problems), 1)

    def test_a_like_without_an_id_is_a_problem(self) -> None:
        record = Record()
        record.acknowledge(attempt(like()), [Answer()])
        self.assertEqual(len(record.problems), 1)

    def test_too_few_answers_leave_the_outcome_unknown(self) -> None:
        record = Record()
        record.acknowledge(attempt(like(), like(user="other")), [Answer("a")])
        self.assertEqual(len(record.uncertain_pairs()), 2)
        self.assertEqual(record.figures.operations, 0)

    def test_a_refused_item_changes_nothing(self) -> None:
        record = Record()
        record.acknowledge(attempt(like(), add(3)), [None, Answer()])
        self.assertEqual(record.all_pairs(), set())
        self.assertEqual(record.figures.operations, 1)

    def test_an_unknown_outcome_may_be_either_until_a_retry_is_answered(self) -> None:
        record = Record()
        lost = attempt(like(), add(3), add(-1))
        record.acknowledge(attempt(add(10), request_id="first"), [Answer()])
        record.lose(lost)
        self.assertEqual(record.uncertain_pairs(), {PAIR})
        self.assertEqual(record.counter_bounds(), {("post", "views"): (9, 13)})
        record.resolve(lost, [Answer("a"), Answer(), Answer()])
        self.assertEqual(record.uncertain_pairs(), set())
        self.assertEqual(record.counter_bounds(), {("post", "views"): (12, 12)})
        self.assertTrue(record.is_liker(PAIR))

    def test_pairs_on_both_sides_of_a_cut_are_counted_once(self) -> None:
        record = Record()
        record.cut = CutLedger()
        for region, like_id in (("eu", "a"), ("us", "b"), ("ap", "c")):
            record.acknowledge(attempt(like(), region=region), [Answer(like_id)])
        record.acknowledge(attempt(like(user="lone"), region="eu"), [Answer("d")])
        self.assertEqual(record.cut.both_sides(("eu",), ("us", "ap")), 1)
        self.assertEqual(record.cut.writes, {"eu": 2, "us": 1, "ap": 1})


if __name__ == "__main__":
    unittest.main()
