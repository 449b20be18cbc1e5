"""scripts/gpu-check on the emulated CUDA library: what ends up in its report, whatever happens to the run."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "gpu-check"


class GpuCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.report = self.folder / "report.md"

    def command(self, *flags):
        return [sys.executable, SCRIPT, "--emulate", "--report", self.report, *flags]

    def check(self, *flags, code=0, build=None):
        """What was said; what is in the report."""
        environment = {**os.environ, **({"TRIVET_BUILD": str(build)} if build else {})}
        ran = subprocess.run(self.command(*flags), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
                             env=environment)
        self.assertEqual(ran.returncode, code, ran.stdout + ran.stderr)
        return ran.stdout + ran.stderr, self.parts() if code != 2 else None

    def parts(self):
        return json.loads(self.report.with_suffix(".json").read_text())["parts"]

    def rows(self, parts):
        return [(part, row[0], row[1]) for part in parts for row in parts[part]["rows"]]

    def stand_in(self, script):
        """A build tree whose trivet is a script."""
        (self.folder / "emulation").mkdir()
        (self.folder / "emulation" / "libtrivet_cuda.so").touch()
        (self.folder / "trivet").write_text("#!/bin/sh\n" + script)
        (self.folder / "trivet").chmod(0o755)
        return self.folder

    def test_parts_add_to_the_report(self):
        _, parts = self.check("--only", "golden")
        self.assertEqual(self.rows(parts), [("golden", f"a small training, --comm {comm}", "passed")
                                            for comm in ("mpi", "nccl")])
        _, parts = self.check("--only", "steps,attention")
        self.assertEqual(list(parts), ["golden", "attention", "steps"])
        self.assertTrue(all(verdict == "passed" for _, _, verdict in self.rows(parts)))
        [[title, head, rows]] = parts["attention"]["tables"]
        self.assertEqual([row[0] for row in rows], ["attention_forward", "attention_backward"])
        steps = parts["steps"]["tables"][0][2][0]
        self.assertEqual(steps[:3], ["GPT-2 124M", 1, "1 x 16, micro-batches of 1"])
        self.assertGreater(float(steps[4]), 0)
        text = self.report.read_text()
        for words in ("| golden | a small training, --comm nccl | passed |", "## Attention, bf16, causal",
                      "## Training steps, MFU of 1 TFLOP/s a GPU", "## Kernels of a step, GPT-2 124M, 1 GPU(s)"):
            self.assertIn(words, text)

    def test_a_failure_is_a_row_and_the_rest_runs(self):
        build = self.stand_in('case "$1$2" in benchkernels) echo "{}";; *) echo "no luck" >&2; exit 3;; esac\n')
        said, parts = self.check("--only", "golden,attention,steps", code=1, build=build)
        self.assertIn("no luck", said)
        self.assertEqual([(part, verdict) for part, _, verdict in self.rows(parts)],
                         [("golden", "FAILED (3)"), ("golden", "FAILED (3)"), ("attention", "passed"),
                          ("attention", "FAILED (gpu-check)"), ("steps", "FAILED (3)")])
        self.assertIn("| GPT-2 124M | 1 |  | failed |", self.report.read_text())

    def test_a_budget_that_is_spent(self):
        build = self.stand_in('[ "$1" = train ] && sleep 30\nexit 3\n')
        _, parts = self.check("--only", "golden,steps", "--budget", "3", code=1, build=build)
        self.assertEqual([row[1] for row in parts["golden"]["rows"]], ["FAILED (124)"] * 2)
        self.assertEqual(parts["steps"]["rows"][0][1:], ["skipped", 0, "the budget of time is spent"])

    def test_an_interrupted_run_keeps_what_it_has(self):
        build = self.stand_in(f'[ "$1" = train ] && exit 0\ntouch {self.folder}/benching\nsleep 30\n')
        run = subprocess.Popen(self.command("--only", "golden,attention,steps"), stdout=subprocess.DEVNULL,
                               env={**os.environ, "TRIVET_BUILD": str(build)})
        for _ in range(200):
            if (self.folder / "benching").exists():
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(timeout=20), 1)
        self.assertEqual([(part, verdict) for part, _, verdict in self.rows(self.parts())],
                         [("golden", "passed"), ("golden", "passed"), ("attention", "FAILED (interrupted)")])

    def test_words(self):
        said, _ = self.check("--only", "golden,luck", code=2)
        self.assertIn("--only luck is not one of tests, golden, attention, steps", said)
        said, _ = self.check(code=2, build=self.folder)
        self.assertIn("trivet is not built", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
