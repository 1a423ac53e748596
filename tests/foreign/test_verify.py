"""The judgement: every kind of wrong answer is caught, and a good one is not."""

from __future__ import annotations

import unittest
from collections.abc import Callable

from record import Answer, Attempt, Carrier, Item, Kind, Record
from verify import Answers, bites, hide_from_answers, judge

REGIONS = ("us", "eu", "ap")
VIEWS = ("post", "views")


def sample() -> tuple[Record, dict[str, Answers]]:
    """Two likers, one who unliked, one of unknown outcome, some views; and what is true of it."""
    record = Record()

    def done(item: Item, answer: Answer) -> None:
        record.acknowledge(Attempt("r", "eu", "epoch", Carrier.UNARY, (item,)), [answer])

    done(Item(Kind.LIKE, "post", "ann"), Answer("a"))
    done(Item(Kind.LIKE, "post", "bob"), Answer("b"))
    done(Item(Kind.LIKE, "post", "cat"), Answer("c"))
    done(Item(Kind.UNLIKE, "post", "cat"), Answer(gone=("c",)))
    done(Item(Kind.ADD, "post", counter="views", delta=4), Answer())
    record.lose(Attempt("u", "eu", "epoch", Carrier.UNARY, (Item(Kind.LIKE, "post", "dan"),)))
    return record, {
        region: Answers(
            likes={("post", "ann"): True, ("post", "bob"): True, ("post", "cat"): False,
                   ("post", "dan"): True},
            counts={"post": 3}, counters={VIEWS: 4},
        )
        for region in REGIONS
    }


class JudgementTest(unittest.TestCase):
    def check(
        self, spoil: Callable[[Answers], None], lost: int, phantom: int, regions: tuple[str, ...]
    ) -> None:
        record, answers = sample()
        for region in regions:
            spoil(answers[region])
        found = judge(record, answers)
        self.assertEqual((found.lost, found.phantom), (lost, phantom))
        self.assertEqual(found.equal, regions == REGIONS)
        self.assertFalse(found.good)

    def test_the_truth_is_good(self) -> None:
        self.assertTrue(judge(*sample()).good)

    def test_an_unknown_outcome_may_be_either(self) -> None:
        record, answers = sample()
        for said in answers.values():
            said.likes["post", "dan"] = False
            said.counts["post"] = 2
        self.assertTrue(judge(record, answers).good)

    def test_a_lost_like_is_caught(self) -> None:
        def lose(said: Answers) -> None:
            said.likes["post", "ann"] = False
            said.counts["post"] -= 1

        self.check(lose, 1, 0, ("us",))
        self.check(lose, 3, 0, REGIONS)

    def test_a_phantom_is_caught(self) -> None:
        def revive(said: Answers) -> None:
            said.likes["post", "cat"] = True
            said.counts["post"] += 1

        self.check(revive, 0, 1, ("ap",))
        self.check(revive, 0, 3, REGIONS)

    def test_a_count_beside_the_likers_is_caught(self) -> None:
        def drift(said: Answers) -> None:
            said.counts["post"] += 1

        self.check(drift, 0, 0, REGIONS)

    def test_a_counter_beside_its_adds_is_caught(self) -> None:
        def twice(said: Answers) -> None:
            said.counters[VIEWS] += 4

        self.check(twice, 0, 0, REGIONS)

    def test_a_missing_answer_is_caught(self) -> None:
        def silent(said: Answers) -> None:
            del said.likes["post", "cat"]

        self.check(silent, 0, 0, REGIONS)

    def test_a_hidden_like_is_caught(self) -> None:
        record, answers = sample()
        found = judge(record, hide_from_answers(record, answers))
        self.assertEqual((found.lost, found.phantom, found.equal), (3, 0, True))
        self.assertTrue(bites(record, answers, judge(record, answers)))
        self.assertTrue(judge(record, answers).good, "hiding leaves nothing behind")


if __name__ == "__main__":
    unittest.main()
