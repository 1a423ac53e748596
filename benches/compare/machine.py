"""What the kernel tells: of this machine, and of a process's time, memory and files."""

import os
import platform
import subprocess
import time
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
BLOCK_BYTES = 512


def description():
    """What to say of the machine beside its figures."""
    cpu = _field("/proc/cpuinfo", "model name")
    memory = _field("/proc/meminfo", "MemTotal")
    load = Path("/proc/loadavg").read_text().split()[0]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu,
        "memory": memory,
        "kernel": platform.release(),
        "disk": _disk(),
        "load_before": float(load),
    }


def _field(file, name):
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _disk():
    found = subprocess.run(
        ["df", "--output=fstype,source", "."], capture_output=True, text=True, check=False
    )
    return " ".join(found.stdout.splitlines()[-1].split()) if found.returncode == 0 else "unknown"


def cpu_seconds(pid):
    """Processor time that a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def machine_cpu_seconds():
    """Processor time that anybody has used since the machine was started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields[at] for at in (0, 1, 2, 5, 6)) / TICKS_A_SECOND


def children_cpu_seconds():
    """Processor time of all processes that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


def memory_bytes(pid, name="VmRSS"):
    """Memory of a process; `VmHWM` for the most that it ever had."""
    return int(_field(f"/proc/{pid}/status", name).split()[0]) * 1024


def longest_delay_ms(seconds):
    """How much too late the machine woke a thread that sleeps a millisecond at a time, at its worst."""
    longest, end = 0, time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        time.sleep(0.001)
        longest = max(longest, time.perf_counter() - begun - 0.001)
    return 1_000 * longest


def disk_bytes(folder):
    """What the files below a folder take on the disk, as `du` counts."""
    total = 0
    for path in [folder, *folder.rglob("*")]:
        try:
            total += path.lstat().st_blocks * BLOCK_BYTES
        except FileNotFoundError:
            # A segment that was cut meanwhile takes nothing.
            continue
    return total
