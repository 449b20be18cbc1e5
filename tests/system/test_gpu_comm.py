"""How tensors on GPUs move, on the emulated CUDA library: the same training through the host and over NCCL's double."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from trivet import BINARY  # noqa: E402

MODEL = ["--mock-data", "--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "2", "--vocab-size", "64",
         "--seq-length", "16", "--global-batch-size", "4", "--train-iters", "2", "--precision", "fp32", "--threads", "1",
         "--timeout", "60", "--log-level", "info"]


def train(flags, gpus):
    """(exit code, what was said)"""
    environment = {**os.environ, "TRIVET_EMULATION_GPUS": str(gpus)}
    ran = subprocess.run([BINARY, "train"] + MODEL + flags, capture_output=True, text=True, timeout=120,
                         stdin=subprocess.DEVNULL, env=environment)
    return ran.returncode, ran.stdout + ran.stderr


class Comm(unittest.TestCase):
    def steps(self, flags, comm, gpus):
        with tempfile.TemporaryDirectory() as folder:
            metrics = Path(folder) / "metrics.jsonl"
            code, said = train(["--device", "cuda", "--comm", comm, "--metrics", str(metrics)] + flags, gpus)
            self.assertEqual(code, 0, said)
            lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        return [(line["loss"], line["grad_norm"]) for line in lines if line["type"] == "step"]

    def test_nccl_and_host_memory_give_the_same_bits(self):
        for flags in (["--local-ranks", "2", "--tp", "2"], ["--local-ranks", "2", "--pp", "2", "--vpp", "2"],
                      ["--local-ranks", "2", "--zero-stage", "1"]):
            with self.subTest(flags=flags):
                through_host = self.steps(flags, "mpi", 1)  # both ranks on one GPU
                self.assertEqual(len(through_host), 2)
                self.assertEqual(self.steps(flags, "nccl", 2), through_host)

    def test_nccl_needs_a_gpu_for_each_rank(self):
        code, said = train(["--device", "cuda", "--local-ranks", "2", "--tp", "2", "--comm", "nccl"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm nccl: ranks 0 and 1 are both on the GPU 0000:10:00.0", said)
        self.assertIn("--comm mpi would work", said)

    def test_words(self):
        code, said = train(["--device", "cpu", "--comm", "nccl"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm nccl is for --device cuda", said)
        code, said = train(["--comm", "smoke"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm smoke is not one of auto, nccl, mpi", said)


if __name__ == "__main__":
    unittest.main()
