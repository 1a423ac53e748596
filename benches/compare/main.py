"""Peers, limits and Likewise in turn, several rounds in one run: see `run` beside this file."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import machine
from goals import POSTGRES, ROWS
from measurements import FULL, QUICK, Round
from nodes import Tools
from processes import Failed, Processes, emptied
from report import Report

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5


def arguments():
    parser = argparse.ArgumentParser(prog="benches/compare/run", description=__doc__)
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the table says")
    parser.add_argument("--quick", action="store_true", help="one round with small numbers")
    parser.add_argument("--only", metavar="PART", action="append", help="rows whose name contains this")
    parser.add_argument("--rounds", metavar="N", type=int, help=f"default {ROUNDS}; 1 with --quick")
    parser.add_argument("--with-postgres", action="store_true", help="a SQL upsert among the peers")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where the figures go")
    parser.add_argument("--node", metavar="BINARY", help="another build of the node")
    parser.add_argument("--load", metavar="BINARY", help="another build of the load generator")
    given = parser.parse_args()
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be at least 1")
    return given


def build(given):
    """Where node and load generator are, built unless they are given."""
    # The load generator first: it brings a node with it that has the features of the tests, and is not the one that is run.
    load = given.load or built("compare_load", "bench", "--no-run", "--bench", "compare_load")
    return given.node or built("likewise", "build", "--release", "--bin", "likewise"), load


def built(name, *command):
    """The path of what cargo builds."""
    output = subprocess.run(
        ["cargo", *command, "--locked", "--message-format", "json-render-diagnostics"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    artifacts = (json.loads(line) for line in output.splitlines())
    paths = (each["executable"] for each in artifacts if each.get("executable") and each["target"]["name"] == name)
    return next(paths)


def measures(rows):
    """Each measurement once, in the order of the table."""
    return list(dict.fromkeys(row.measure for row in rows))


def measure(report, rows, rounds, sizes, tools, folder):
    """One round after the other; yields after each, so that what is there can be kept."""
    all_measures = measures(rows)
    for number in range(rounds):
        for one in all_measures:
            begun = time.monotonic()
            run = Round(tools, sizes, emptied(folder), number)
            try:
                report.add(one(run))
                outcome = "done"
            except (Failed, OSError, subprocess.SubprocessError, ValueError) as error:
                report.failed(one, error)
                outcome = f"FAILED: {error}"
            finally:
                # A measurement ends what it has started; this is for one that failed.
                tools.processes.stop_all()
            took = time.monotonic() - begun
            print(f"round {number + 1}/{rounds} {one.__name__}: {outcome}, {took:.0f} s",
                  file=sys.stderr, flush=True)  # fmt: skip
        yield number
    emptied(folder)


def main():
    given = arguments()
    rows = [*ROWS, POSTGRES] if given.with_postgres else ROWS
    if given.only:
        rows = [row for row in rows if any(part in row.name for part in given.only)]
    if not rows:
        sys.exit(f"no row's name contains {' or '.join(map(repr, given.only))}")
    node, load = build(given)
    rounds = given.rounds or (1 if given.quick else ROUNDS)
    about = {**machine.description(), "rounds": rounds, "commit": commit()}
    report = Report(rows, about, given.quick)
    work = ROOT / "target" / "compare"
    file = given.json or work / "figures.json"
    work.mkdir(parents=True, exist_ok=True)
    begun, used = time.monotonic(), others_cpu_seconds()
    with Processes() as processes:
        tools = Tools(processes, node, load)
        sizes = QUICK if given.quick else FULL
        try:
            for _ in measure(report, rows, rounds, sizes, tools, work / "data"):
                file.write_text(report.json() + "\n")
        except KeyboardInterrupt:
            processes.stop_all()
            emptied(work / "data")
            print(f"{report.text()}\n\ninterrupted: not all rounds were made")
            return 130
    others = max(others_cpu_seconds() - used, 0)
    about["others_cpus"] = round(others / (time.monotonic() - begun), 2)
    about["minutes"] = round((time.monotonic() - begun) / 60, 1)
    print(report.text())
    file.write_text(report.json() + "\n")
    return 0 if given.report_only or report.are_all_met() else 1


def others_cpu_seconds():
    """Processor time of everything on the machine that was not started here."""
    return machine.machine_cpu_seconds() - machine.children_cpu_seconds()


def commit():
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
