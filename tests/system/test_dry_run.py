"""--dry-run: layers, parameters and memory of every stage, without training (row B21), and the other quick commands."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import trivet


def dry_run(ranks=1, mpi=False, **flags):
    words = {"dry-run": True, "json": True, "model": "gpt2", "hidden-size": 64, "num-attention-heads": 4, "vocab-size": 256,
             "seq-length": 32}
    words.update({name.replace("_", "-"): value for name, value in flags.items()})
    return trivet.run(tempfile.gettempdir(), words, ranks=ranks, mpi=mpi)


class DryRun(unittest.TestCase):
    def test_b21_every_layer_once_in_order(self):
        for layers, pp in ((30, 4), (80, 16), (7, 2), (7, 4), (8, 8), (5, 1)):
            result = dry_run(num_layers=layers, pp=pp)
            self.assertEqual(result.code, 0, result.err)
            plan = json.loads(result.out)
            self.assertEqual([layer for stage in plan["stages"] for layer in stage["layers"]], list(range(layers)))
            self.assertEqual([s["embedding"] for s in plan["stages"]], [True] + [False] * (pp - 1))
            self.assertEqual([s["head"] for s in plan["stages"]], [False] * (pp - 1) + [True])
        refused = dry_run(num_layers=3, pp=4)
        self.assertEqual(refused.code, 2)
        self.assertIn("3", refused.err)

    def test_parameters_are_those_of_gpt2(self):
        plan = json.loads(dry_run(**{"preset": "gpt2", "hidden-size": None, "num-attention-heads": None,
                                     "vocab-size": None, "seq-length": None}).out)
        self.assertEqual(plan["parameters"], 124439808)

    def test_memory_is_what_training_uses(self):
        folder = tempfile.mkdtemp()
        data = trivet.write_tokens(Path(folder) / "walk.u16", trivet.walk_tokens(4000))
        mesh = {"pp": 2, "dp": 2, "tp": 2}
        for more in ({}, {"sequence-parallel": True}, {"sequence-parallel": True, "dropout": 0.1, "label-smoothing": 0.1}):
            flags = dict(trivet.SMALL, **{"data": data, "train-iters": 2, "pp": 2, "tp": 2, "dp": 2}, **more)
            real = trivet.run(folder, flags, ranks=8)
            plan = json.loads(trivet.run(folder, dict(flags, **{"dry-run": True, "json": True}), ranks=1).out)
            self.assertEqual(plan["mesh"], mesh)
            self.assertEqual(real.steps[-1]["peak_memory_bytes"],
                             max(stage["memory_bytes_per_rank"]["total"] for stage in plan["stages"]))

    def test_buffers_are_a_small_part(self):
        # the shapes of docs/performance.md; logits of all rows would be 196 and 125 MiB
        for preset, batch in (("small-gpt2", 4), ("small-llama", 2)):
            for recompute in ("none", "selective", "full"):
                words = {"dry-run": True, "json": True, "preset": preset, "micro-batch-size": batch, "recompute": recompute}
                [stage] = json.loads(trivet.run(tempfile.gettempdir(), words, ranks=1).out)["stages"]
                memory = stage["memory_bytes_per_rank"]
                need = memory["total"] - memory["buffers"]
                self.assertAlmostEqual(stage["memory_of_need"], memory["total"] / need, delta=1e-9)
                self.assertLessEqual(stage["memory_of_need"], 1.15)
                self.assertLess(memory["buffers"], 72 * 2**20)  # a chunk of logits may take 64

    def test_text_fits_80_columns_when_names_are_short(self):
        result = dry_run(num_layers=4, pp=2, json=None)
        self.assertEqual(result.code, 0)
        self.assertIn("embedding, layers 1-2", result.out)

    def test_a_full_disk_and_too_many_ranks_are_refused(self):
        words = dict(trivet.SMALL, **{"dry-run": True})
        with open("/dev/full", "w") as out:
            full = subprocess.run(trivet.command(words), stdout=out, stderr=subprocess.PIPE, text=True)
        self.assertEqual(full.returncode, 1)
        self.assertIn("cannot be written", full.stderr)
        result = dry_run(num_layers=4, pp=2000000)
        self.assertEqual(result.code, 2)
        self.assertIn("--pp 2000000 x --tp 1 x --dp 1: at most 1048576", result.err)

    def test_under_a_launcher_it_prints_once(self):
        result = dry_run(ranks=4, mpi=True, num_layers=4, pp=2)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(json.loads(result.out)["mesh"], {"pp": 2, "dp": 2, "tp": 1})


class Commands(unittest.TestCase):
    def call(self, *words, **how):
        return subprocess.run([trivet.BINARY, *words], capture_output=True, text=True, timeout=30, **how)

    def test_version_help_and_unknown_commands(self):
        self.assertRegex(self.call("--version").stdout, r"^trivet \d+\.\d+\.\d+\n")
        self.assertIn("train", self.call("--help").stdout)
        self.assertIn("--pp N", self.call("train", "--help").stdout)
        self.assertEqual(self.call().returncode, 2)
        wrong = self.call("trian")
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("trian", wrong.stderr)

    def test_a_terminal_gets_a_live_line_and_a_pipe_plain_ones(self):
        folder = tempfile.mkdtemp()
        data = trivet.write_tokens(Path(folder) / "walk.u16", trivet.walk_tokens(4000))
        words = trivet.command(dict(trivet.SMALL, data=data, **{"train-iters": 30}))
        piped = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
        self.assertNotIn("\r", piped)
        self.assertEqual([line.split()[1] for line in piped.splitlines() if line.startswith("step ")],
                         ["1/30", "10/30", "20/30", "30/30"])
        leader, follower = os.openpty()
        process = subprocess.Popen(words, stdout=follower, stderr=follower)
        os.close(follower)
        seen = b""
        while True:
            try:
                block = os.read(leader, 65536)
            except OSError:
                break
            if not block:
                break
            seen += block
        self.assertEqual(process.wait(), 0)
        text = seen.decode()
        self.assertIn("\r\x1b[K", text)
        self.assertIn("step 30/30", text)
        for line in text.replace("\r\x1b[K", "\n").splitlines():
            self.assertLessEqual(len(line.strip()), 100)

    def test_standard_output_that_goes_away_does_not_hang(self):
        folder = tempfile.mkdtemp()
        data = trivet.write_tokens(Path(folder) / "walk.u16", trivet.walk_tokens(4000))
        words = trivet.command(dict(trivet.SMALL, data=data, **{"log-interval": 1}))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.read(10)
        process.stdout.close()
        process.wait(timeout=60)


if __name__ == "__main__":
    unittest.main(verbosity=2)
