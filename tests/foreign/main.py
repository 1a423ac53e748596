"""Runs the foreign client: arguments, the run, the verdict.

The last line says whether the run is good, bad, or void because it missed one of its demands.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from client import OutcomeUnknown, Refused
from cluster import Cluster, NotSettled
from load import Load
from nodes import NodeFailed
from probes import Probes
from record import Carrier, Record
from scenario import Deeds, Scale, Scenario, TooSlow
from stubs import generate
from verify import Answers, Judgement, bites, hide_from_answers, judge, read_back
from workload import Workload

REGIONS = ("us", "eu", "ap")
UNCERTAIN_SHARE_MAX = 0.05
LOG_LINES = 15


@dataclass(frozen=True)
class Form:
    """The size of a run, and what it must reach not to be void."""

    scale: Scale
    posts: int
    users: int
    run_wait_s: float
    operations: int
    unary: int
    unlike_share: float
    both_sides: int
    cuts: int
    cut_writes: int
    kills: int
    unknown: int
    catch_ups: int
    probe_reads: int


SHORT = Form(
    scale=Scale(unary=700, streamed=5_400, split_users=300, stage_wait_s=60, settle_wait_s=45),
    posts=1_000, users=6_000, run_wait_s=235,
    operations=50_000, unary=5_000, unlike_share=0.10, both_sides=200, cuts=1, cut_writes=1_000,
    kills=1, unknown=0, catch_ups=0, probe_reads=50,
)
FULL = Form(
    scale=Scale(unary=2_200, streamed=6_800, split_users=300, stage_wait_s=240, settle_wait_s=120),
    posts=2_000, users=15_000, run_wait_s=1_800,
    operations=200_000, unary=50_000, unlike_share=0.15, both_sides=1_000, cuts=5,
    cut_writes=2_000, kills=5, unknown=1, catch_ups=1, probe_reads=300,
)


@dataclass
class Run:
    """What a run left behind for the verdict."""

    record: Record
    judgement: Judgement
    deeds: Deeds
    probe_reads: int = 0
    seconds: float = 0.0


def demands_missed(run: Run, form: Form) -> list[str]:
    """What makes the run void."""
    figures, deeds = run.record.figures, run.deeds
    operations = max(figures.operations, 1)
    repeats = figures.viral_repeats / max(figures.viral_likes, 1)
    uncertain = len(run.record.uncertain_pairs()) / max(len(run.record.all_pairs()), 1)
    reached = {
        "operations": (figures.operations, form.operations),
        "unary": (figures.carried[Carrier.UNARY], form.unary),
        "unlikes": (figures.unlikes, form.unlike_share * operations),
        "both_sides": (deeds.both_sides, form.both_sides),
        "cuts": (deeds.cuts, form.cuts),
        "writes on each side of a cut": (deeds.cut_writes_min or 0, form.cut_writes),
        "kills": (deeds.kills, form.kills),
        "unknown": (figures.unknown, form.unknown),
        "catch-ups": (deeds.catch_ups, form.catch_ups),
        "reads with a token": (run.probe_reads, form.probe_reads),
    }
    missed = [
        f"{name} {has} of {wants:.0f}" for name, (has, wants) in reached.items() if has < wants
    ]
    if not 0.65 <= repeats <= 0.85:
        missed.append(f"repeated likes {repeats:.0%} of viral ones, not 65 to 85 %")
    if uncertain > UNCERTAIN_SHARE_MAX:
        missed.append(f"uncertain {uncertain:.0%} of all pairs")
    return missed


def verdict(run: Run, form: Form) -> tuple[bool, str]:
    """Whether the run is good, and the last line."""
    figures, deeds, judgement = run.record.figures, run.deeds, run.judgement
    line = (
        f"operations={figures.operations} unary={figures.carried[Carrier.UNARY]} "
        f"streamed={figures.carried[Carrier.STREAM]} unlikes={figures.unlikes} "
        f"both_sides={deeds.both_sides} cuts={deeds.cuts} kills={deeds.kills} "
        f"unknown={figures.unknown} lost={judgement.lost} phantom={judgement.phantom} "
        f"equal={'yes' if judgement.equal else 'no'} seconds={run.seconds:.0f}"
    )
    missed = demands_missed(run, form)
    if not judgement.good:
        return False, f"verdict: FAILED {line}"
    if missed:
        return False, f"verdict: VOID {line} missed: {'; '.join(missed)}"
    return True, f"verdict: ok {line}"


async def carry_out(arguments: argparse.Namespace, form: Form, folder: Path, run: Run) -> None:
    """Does everything, and leaves what it found in `run`."""
    stubs_folder = folder / "stubs"
    stubs_folder.mkdir()
    stubs = generate(arguments.proto, stubs_folder)
    record, seed = run.record, arguments.seed
    cluster = Cluster(stubs, arguments.binary, folder, REGIONS)
    workload = Workload(seed, form.posts, form.users, record)
    load = Load(cluster, workload, record, f"run-{seed}")
    probes = Probes(cluster, load, record, seed + 1)
    scenario = Scenario(cluster, workload, load, probes, record, form.scale, seed + 2)
    run.deeds = scenario.deeds
    try:
        await cluster.open()
        load.open()
        probes.open()
        await (scenario.full() if arguments.full else scenario.short())
        fingerprint = await scenario.settle()
        run.probe_reads = probes.reads
        await _verify(scenario, cluster, run, arguments.tamper, "after the heal")
        again = await scenario.restart_all()
        if again != fingerprint:
            run.judgement.problems.append(f"fingerprint {fingerprint} became {again} by a restart")
        await _verify(scenario, cluster, run, arguments.tamper, "after the restart")
    finally:
        run.judgement.problems += record.problems + cluster.problems
        for part in (probes, load, cluster):
            await part.close()


async def _verify(
    scenario: Scenario, cluster: Cluster, run: Run, tamper: bool, moment: str
) -> None:
    """Reads everything back from all nodes, judges it, and checks that the judgement bites."""
    answers = await _read_all(cluster, run.record)
    if tamper:
        answers = hide_from_answers(run.record, answers)
    found = judge(run.record, answers)
    run.judgement.lost += found.lost
    run.judgement.phantom += found.phantom
    run.judgement.equal &= found.equal
    run.judgement.problems += [f"{moment}, {problem}" for problem in found.problems]
    if not tamper and not bites(run.record, answers, found):
        run.judgement.problems.append(f"{moment}, a hidden like was not caught")
    likes = len(run.record.all_pairs())
    scenario.tell(f"{moment}: {likes} pairs read from each node, lost={found.lost} "
                  f"phantom={found.phantom} equal={'yes' if found.equal else 'no'}")


async def _read_all(cluster: Cluster, record: Record) -> dict[str, Answers]:
    async def read(region: str) -> tuple[str, Answers]:
        client = cluster.members[region].client
        assert client is not None, "all nodes are up when answers are read"
        return region, await read_back(cluster.stubs, client, record)

    return dict(await asyncio.gather(*map(read, cluster.regions)))


async def bounded(arguments: argparse.Namespace, form: Form, folder: Path, run: Run) -> str:
    """Carries the run out within its time; says why it ended early, or nothing."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with asyncio.timeout(form.run_wait_s):
            await carry_out(arguments, form, folder, run)
    except TooSlow as error:
        return f"VOID {error}"
    except TimeoutError:
        return f"FAILED not done after {form.run_wait_s:.0f} s"
    except asyncio.CancelledError:
        return "FAILED interrupted"
    except (NodeFailed, NotSettled, Refused, OutcomeUnknown) as error:
        return f"FAILED {error}"
    return ""


def _print_logs(folder: Path) -> None:
    """Prints the end of each node's log."""
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        print("\n".join([f"--- {log.name}", *lines]))


def main() -> int:
    """Runs, prints the story and the verdict, and answers with the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proto", type=Path, required=True, help="the folder of the interfaces")
    parser.add_argument("--binary", type=Path, required=True, help="the product")
    parser.add_argument("--full", action="store_true", help="the long run")
    parser.add_argument("--seed", type=int, help="of what is written and when nodes are killed")
    parser.add_argument("--tamper", action="store_true",
                        help="hide one acknowledged like from the answers: the run must fail")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(1 << 31)
    form = FULL if arguments.full else SHORT
    folder = Path(tempfile.mkdtemp(prefix="likewise-foreign-"))
    print(f"seed {arguments.seed}; nodes under {folder}", flush=True)
    begun = time.monotonic()
    run = Run(Record(), Judgement(), Deeds())
    ended_early = asyncio.run(bounded(arguments, form, folder, run))
    run.seconds = time.monotonic() - begun
    good, line = verdict(run, form)
    figures = run.record.figures
    print(f"batched={figures.carried[Carrier.BATCH]} resolved={figures.resolved} "
          f"refused={dict(figures.refused)} token_reads={run.probe_reads} "
          f"viral_repeats={figures.viral_repeats / max(figures.viral_likes, 1):.0%}")
    for problem in run.judgement.problems:
        print(f"problem: {problem}")
    if good or ended_early.startswith("VOID"):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    else:
        _print_logs(folder)
        print(f"folders and logs are kept under {folder}")
    if ended_early:
        kind, _, why = ended_early.partition(" ")
        line = line.partition(": ")[2].partition(" ")[2].partition(" missed: ")[0]
        good, line = False, f"verdict: {kind} {line} because: {why}"
    print(line, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
