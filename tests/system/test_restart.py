"""The launch example for mpiexec: it starts a job again from its last checkpoint, where that can help."""
import json
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

import trivet

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "launch" / "mpirun.sh"

# In place of mpiexec: notes its words, ends with the next of the codes; "wait N" ends with N when it is told to stop.
FAKE = """#!/usr/bin/env bash
echo "$@" >>calls
next=$(sed -n "$(wc -l <calls)p" codes)
case $next in
wait*) trap 'echo TERM >>told; exit ${next#wait }' TERM; trap 'echo INT >>told; exit ${next#wait }' INT
       touch ready; while :; do sleep 0.05; done ;;
*) exit "$next" ;;
esac
"""


class Restart(unittest.TestCase):
    def setUp(self):
        self.folder = trivet.new_folder()
        (self.folder / "corpus.txt").write_text("round and round it goes, " * 500)

    def start(self, words, path=None, **options):
        env = dict(os.environ, TRIVET=trivet.BINARY)
        if path:
            env["PATH"] = f"{path}:{env['PATH']}"
        return subprocess.Popen([SCRIPT, *words], cwd=self.folder, env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, **options)

    def run_codes(self, restarts, codes):
        """The script's exit code and how often it started a job, which ends with one code after the other."""
        mpiexec = self.folder / "mpiexec"
        mpiexec.write_text(FAKE)
        mpiexec.chmod(0o755)
        for name in ("calls", "told", "ready"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "codes").write_text("".join(f"{code}\n" for code in codes))
        words = ["--restart-on-failure", str(restarts)] if restarts is not None else []
        return self.start([*words, "hosts", "corpus.txt", "--lr", "1"], path=self.folder)

    def check(self, restarts, codes, expected, num_calls):
        process = self.run_codes(restarts, codes)
        process.communicate(timeout=30)
        calls = (self.folder / "calls").read_text().splitlines()
        self.assertEqual((process.returncode, len(calls)), (expected, num_calls), codes)
        for call in calls:
            self.assertRegex(call, "^-f hosts -n 8 .* --load auto .* --lr 1$")

    def test_it_starts_again_what_may_work_then(self):
        self.check(2, [5, 9, 0], 0, 3)
        self.check(1, [5, 137, 0], 137, 2)
        self.check(0, [5], 5, 1)
        self.check(None, [1], 1, 1)

    def test_it_does_not_repeat_what_would_only_happen_again(self):
        for code in (0, 2, 3, 4, 75):
            self.check(3, [code], code, 1)

    def test_told_to_stop_it_tells_the_job_and_does_not_start_again(self):
        for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 75), (signal.SIGTERM, 9)):
            process = self.run_codes(3, [f"wait {code}"])
            while not (self.folder / "ready").exists():
                time.sleep(0.02)
            process.send_signal(number)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, code)
            self.assertEqual((self.folder / "told").read_text(), number.name[3:] + "\n")
            self.assertEqual(len((self.folder / "calls").read_text().splitlines()), 1)

    def test_usage(self):
        for words in ([], ["hosts"], ["--restart-on-failure"], ["--restart-on-failure", "many", "hosts", "corpus.txt"]):
            process = self.start(words)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 2, words)

    def test_a_killed_rank(self):
        (self.folder / "hosts").write_text("localhost:8\n")
        metrics = self.folder / "trivet.jsonl"
        process = self.start(["--restart-on-failure", "1", "hosts", "corpus.txt", "--train-iters", "12",
                              "--seq-length", "16", "--global-batch-size", "8", "--micro-batch-size", "1",
                              "--save-interval", "2", "--metrics", metrics])
        deadline = time.monotonic() + 60
        while not metrics.exists() or '"save","step":4' not in metrics.read_text():
            self.assertLess(time.monotonic(), deadline)
            self.assertIsNone(process.poll())
            time.sleep(0.02)
        ranks = subprocess.run(["pgrep", "-f", f"^{trivet.BINARY} .*{metrics}"], capture_output=True,
                               text=True).stdout.split()
        os.kill(int(ranks[3]), signal.SIGKILL)
        _, err = process.communicate(timeout=90)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("starting again from the last checkpoint", err)
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        self.assertEqual(records[-1]["status"], "ok")
        second = max(i for i, r in enumerate(records) if r["type"] == "config")
        steps = [r["step"] for r in records[second:] if r["type"] == "step"]
        self.assertEqual(steps, list(range(steps[0], 13)))
        self.assertGreaterEqual(steps[0], 5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
