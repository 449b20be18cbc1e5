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


def train(flags, gpus, **more):
    """(exit code, what was said)"""
    environment = {**os.environ, "TRIVET_EMULATION_GPUS": str(gpus), **more}
    ran = subprocess.run([BINARY, "train"] + MODEL + flags, capture_output=True, text=True, timeout=120,
                         stdin=subprocess.DEVNULL, env=environment)
    return ran.returncode, ran.stdout + ran.stderr


PCI = ["0000:10:00.0", "0000:20:00.0"]  # of the emulation


class Comm(unittest.TestCase):
    def lines(self, flags, comm, gpus, **more):
        """(lines of the metrics file, what was said)"""
        with tempfile.TemporaryDirectory() as folder:
            metrics = Path(folder) / "metrics.jsonl"
            code, said = train(["--device", "cuda", "--comm", comm, "--metrics", str(metrics)] + flags, gpus, **more)
            self.assertEqual(code, 0, said)
            return [json.loads(line) for line in metrics.read_text().splitlines()], said

    def steps(self, flags, comm, gpus):
        lines, _ = self.lines(flags, comm, gpus)
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

    def test_ranks_share_the_gpus_that_the_driver_lists(self):
        """As on a machine with a driver, where ranks take the GPUs that NVML lists (a made-up one)."""
        for ranks, gpus, taken in ((4, PCI[:1], PCI[:1] * 4), (3, PCI, [PCI[0], PCI[1], PCI[0]])):
            with self.subTest(ranks=ranks), tempfile.TemporaryDirectory() as folder:
                listed = Path(folder) / "nvml"
                listed.write_text("".join(f"gpu {pci} GPU-{pci} 0 0 NVIDIA H100\n" for pci in gpus))
                libraries = f"{os.environ['TRIVET_FAKE_NVML']}:{os.environ['LD_LIBRARY_PATH']}"
                there = {"FAKE_NVML": str(listed), "LD_LIBRARY_PATH": libraries}
                flags = ["--topology", "live", "--local-ranks", str(ranks), "--global-batch-size", "12"]
                alone = self.steps(["--global-batch-size", "12"], "mpi", 1)
                for comm in ("mpi", "auto"):
                    lines, said = self.lines(flags, comm, len(gpus), **there)
                    placement = next(line for line in lines if line["type"] == "placement")
                    self.assertEqual([rank["gpu"] for rank in placement["ranks"]], taken)
                    self.assertIn(f"share GPU {PCI[0]}", said)
                    self.assertEqual("--comm auto is mpi: ranks 0 and" in said, comm == "auto")
                    losses = [line["loss"] for line in lines if line["type"] == "step"]
                    for loss, (expected, _) in zip(losses, alone, strict=True):
                        self.assertAlmostEqual(loss, expected, delta=1e-5)
                code, said = train(["--device", "cuda", "--comm", "nccl"] + flags, len(gpus), **there)
                self.assertEqual(code, 2, said)
                self.assertRegex(said, f"would share GPU {PCI[0]}: {ranks} rank.s. see the same {len(gpus)} GPU.*--comm mpi")

    def test_words(self):
        code, said = train(["--device", "cpu", "--comm", "nccl"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm nccl is for --device cuda", said)
        code, said = train(["--comm", "smoke"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm smoke is not one of auto, nccl, mpi", said)


if __name__ == "__main__":
    unittest.main()
