"""Processes that are started here, and ended here whatever happens."""

import json
import shutil
import signal
import socket
import subprocess


class Failed(Exception):
    """A measurement could not be made; says why."""


class Processes:
    """Everything that was started and not ended yet. Each dies with this process at the latest."""

    def __init__(self):
        self._running = []
        signal.signal(signal.SIGTERM, lambda *_: exit(128 + signal.SIGTERM))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_all()

    def start(self, argv, *, environment=None, errors=None):
        """Starts a process with pipes for its input and output."""
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors or subprocess.DEVNULL,
            env=environment,
            text=True,
            bufsize=1,
            # Ctrl-C is for this process, which ends the others in order.
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def result(self, argv, *, seconds_max=900, environment=None):
        """Runs a command to its end and returns its output."""
        return self.finish(self.start(argv, environment=environment, errors=subprocess.PIPE), seconds_max)

    def finish(self, process, seconds_max=900, codes=(0,)):
        """Closes a process's input, waits until it ends by itself, and returns its output."""
        try:
            output, errors = process.communicate(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            self.stop(process, signal.SIGKILL)
            raise Failed(f"{_name(process)} took more than {seconds_max} s")
        self._running.remove(process)
        if process.returncode not in codes:
            words = ((errors or "") + output).strip().splitlines()[-3:]
            raise Failed(f"{_name(process)}: exit code {process.returncode}: {' | '.join(words)}")
        return output

    def stop(self, process, how=signal.SIGTERM):
        """Ends a process and waits until it is gone; kills it if it does not go."""
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    # What was still to be written to it is of no use now.
                    pass
        if process in self._running:
            self._running.remove(process)

    def stop_all(self):
        """Ends everything at once, the last that was started first."""
        for process in reversed(list(self._running)):
            self.stop(process, signal.SIGKILL)


def _name(process):
    return " ".join(process.args[4:8])


def figures(output):
    """The last line of an output, which is JSON."""
    lines = output.strip().splitlines()
    if not lines:
        raise Failed("no figures")
    return json.loads(lines[-1])


def free_port():
    """A port that was free on loopback a moment ago, for servers that do not choose one themselves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def emptied(folder):
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
