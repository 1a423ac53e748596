"""PostgreSQL: a SQL upsert, a like a statement or a thousand of them."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from processes import Failed, emptied, free_port

READY_SECONDS_MAX = 60
CLIENTS = 50
BATCH = 1_000
TABLES = (
    "create table likes (post text, liker text, primary key (post, liker)); "
    "create table counts (post text primary key, likers bigint not null); "
    "insert into counts values ('hot', 0)"
)
ONE = """\\set liker random(0, 9999999)
with new as (insert into likes values ('hot', 'u' || :liker) on conflict do nothing returning 1)
update counts set likers = likers + (select count(*) from new) where post = 'hot';
"""
MANY = f"""with new as (
  insert into likes select distinct 'hot', 'u' || floor(random() * 10000000)::bigint
  from generate_series(1, {BATCH}) on conflict do nothing returning 1)
update counts set likers = likers + (select count(*) from new) where post = 'hot';
"""


class Postgres:
    """A server of its own with the configuration that comes with it: every commit is synced."""

    def __init__(self, tools, folder):
        self._tools = tools
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            raise Failed("PostgreSQL is not installed")
        self._programs = found[-1]
        self._port = free_port()
        self._folder = emptied(folder)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        self._run("initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8")
        self._process = tools.processes.start(
            self._as_itself(
                "postgres", "-D", data, "-p", self._port, "-k", folder, "-h", "127.0.0.1"
            )
        )
        self._until_ready()
        self._ask(TABLES)

    def _as_itself(self, program, *arguments):
        """It refuses to run as root."""
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups",
                "--pdeathsig", "KILL", "--"]  # fmt: skip
        return [*(user if os.geteuid() == 0 else []), self._programs / program, *arguments]

    def _run(self, program, *arguments):
        return self._tools.processes.result(self._as_itself(program, *arguments))

    def _ask(self, query):
        return self._run(
            "psql", "-h", "127.0.0.1", "-p", self._port, "-U", "bench", "-d", "postgres", "-Atc", query
        ).strip()

    def _until_ready(self):
        until = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                return self._ask("select 1")
            except Failed:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def transactions(self, script, seconds):
        """Transactions a second of a script, from many clients."""
        file = self._folder / "script.sql"
        file.write_text(script)
        output = self._run(
            "pgbench", "-h", "127.0.0.1", "-p", self._port, "-U", "bench", "-n", "-c", CLIENTS,
            "-j", 2, "-T", max(1, round(seconds)), "-f", file, "postgres",
        )  # fmt: skip
        rate = re.search(r"tps = ([\d.]+)", output)
        if not rate:
            raise Failed("pgbench tells no rate")
        likers = int(self._ask("select likers from counts"))
        if likers != int(self._ask("select count(*) from likes")):
            raise Failed("PostgreSQL's count is wrong")
        return float(rate[1])

    def stop(self):
        self._tools.processes.stop(self._process, signal.SIGINT)


def upserts(run):
    """One like a statement from 50 clients, and 1,000 likes a statement."""
    try:
        server = Postgres(run.tools, run.path("postgres"))
    except (LookupError, subprocess.SubprocessError) as error:
        raise Failed(f"PostgreSQL: {error}") from error
    try:
        return {
            "postgres_rate": server.transactions(ONE, run.sizes.seconds),
            "postgres_batch_rate": BATCH * server.transactions(MANY, run.sizes.seconds),
        }
    finally:
        server.stop()
