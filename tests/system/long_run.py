"""A training that would go on for long, for tests that do something to it."""
import os
import pty
import subprocess
import time

import trivet

RUN_SECONDS = 60  # on a busy machine; a second else
MANY = 10**7


class Run:
    """A training that would go on for long, its steps so far, and its ranks."""

    def __init__(self, data, mpi=True, ranks=4, terminal=False, **changes):
        self.folder = trivet.new_folder()
        self.metrics = self.folder / "metrics.jsonl"
        flags = dict(trivet.small_flags({"train_iters": MANY, "pp": 2, "tp": 2} | changes), data=data,
                     metrics=self.metrics)
        words = trivet.command(flags, ranks=ranks, mpi=mpi)
        self.key = f"^{trivet.BINARY} .*{self.metrics}"
        self.terminal = None
        ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if terminal:
            self.terminal, end = pty.openpty()
            ends = {"stdin": end, "stdout": end, "stderr": end, "preexec_fn": lambda: os.login_tty(end)}
        self.process = subprocess.Popen(words, text=True, start_new_session=not terminal, **ends)
        if terminal:
            os.close(end)

    def wait_for_steps(self, count=3):
        deadline = time.monotonic() + RUN_SECONDS
        while not self.metrics.exists() or self.metrics.read_text().count('"type":"step"') < count:
            assert time.monotonic() < deadline and self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def ranks(self):
        return sorted(map(int, subprocess.run(["pgrep", "-f", self.key], capture_output=True,
                                              text=True).stdout.split()))

    def left(self):
        """Ranks that are still there some seconds behind the run's end: mpiexec does not wait for all it has killed."""
        deadline = time.monotonic() + 10
        while (ranks := self.ranks()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return ranks

    def type(self, keys):
        os.write(self.terminal, keys)

    def read_terminal(self):
        said = b""
        try:
            while part := os.read(self.terminal, 4096):
                said += part
        except OSError:  # the other end is closed
            pass
        return said.decode(errors="replace")

    def finish(self):
        try:
            out, err = self.process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # mpiexec's ranks go with it
            raise
        return trivet.Result(subprocess.CompletedProcess([], self.process.returncode, out, err), self.folder)
