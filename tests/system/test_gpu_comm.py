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


WORKSPACE = 32 << 20
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
                      ["--local-ranks", "2", "--zero-stage", "1"],
                      ["--local-ranks", "2", "--tp", "2", "--sequence-parallel", "--tp-comm-overlap"]):
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
        small = ["--num-layers", "1", "--global-batch-size", "12"]
        alone = self.steps(small, "mpi", 1)
        for ranks, gpus, taken in ((4, PCI[:1], PCI[:1] * 4), (3, PCI, [PCI[0], PCI[1], PCI[0]])):
            with self.subTest(ranks=ranks), tempfile.TemporaryDirectory() as folder:
                listed = Path(folder) / "nvml"
                listed.write_text("".join(f"gpu {pci} GPU-{pci} 0 0 NVIDIA H100\n" for pci in gpus))
                libraries = f"{os.environ['TRIVET_FAKE_NVML']}:{os.environ['LD_LIBRARY_PATH']}"
                there = {"FAKE_NVML": str(listed), "LD_LIBRARY_PATH": libraries}
                flags = ["--topology", "live", "--local-ranks", str(ranks)] + small
                for comm in ("mpi", "auto") if ranks == 3 else ("auto",):
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

    def test_the_timeline_has_what_the_gpus_did(self):
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            code, said = train(["--device", "cuda", "--comm", "nccl", "--local-ranks", "4", "--pp", "2", "--dp", "2",
                                "--num-layers", "2", "--train-iters", "1", "--trace", str(trace)], 4)
            self.assertEqual(code, 0, said)
            events = json.loads(trace.read_text())["traceEvents"]
        named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
        spans = [e for e in events if e.get("cat") == "gpu"]
        for rank in range(4):
            on_gpu = {}
            for span in (span for span in spans if span["pid"] == rank):
                on_gpu.setdefault(named[rank, span["tid"]], []).append(span)
            compute = on_gpu.pop("GPU: compute")
            # of the last step: two micro-batches forward and backward, then the sum, then the optimizer
            order = ["F0", "F1", "B0", "B1"] if rank < 2 else ["F0", "B0", "F1", "B1"]
            self.assertEqual([span["name"].split(",")[0] for span in compute], order + ["sum of gradients", "optimizer"])
            for before, after in zip(compute, compute[1:]):
                self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + 20)  # microseconds
            words = [span["name"] for of_stream in on_gpu.values() for span in of_stream]
            self.assertTrue(any(word.startswith("data all_reduce") for word in words), words)
            self.assertEqual(len([word for word in words if " send," in word]), 2, words)
            self.assertEqual(len([word for word in words if " receive," in word or " recv," in word]), 2, words)
            host = [e for e in events if e.get("cat") == "compute" and e["pid"] == rank]
            self.assertEqual(len(host), 4)

    def test_memory_is_what_was_predicted(self):
        """Workspace of the kernels included."""
        lines, _ = self.lines(["--pp", "2", "--precision", "bf16", "--local-ranks", "2"], "mpi", 2)
        for stage in next(line for line in lines if line["type"] == "pipeline")["memory_bytes"]:
            self.assertEqual(stage["measured"], stage["predicted"])
            self.assertGreater(stage["measured"]["buffers"], WORKSPACE)
        dry = {}
        for device in ("cpu", "cuda"):
            ran = subprocess.run([BINARY, "train", "--dry-run", "--json", "--device", device] + MODEL, capture_output=True,
                                 text=True, timeout=60)
            dry[device] = json.loads(ran.stdout)["stages"][0]["memory_bytes_per_rank"]
        self.assertEqual(dry["cuda"]["buffers"] - dry["cpu"]["buffers"], WORKSPACE)

    def test_words(self):
        code, said = train(["--device", "cpu", "--comm", "nccl"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm nccl is for --device cuda", said)
        code, said = train(["--comm", "smoke"], 1)
        self.assertEqual(code, 2)
        self.assertIn("--comm smoke is not one of auto, nccl, mpi", said)


if __name__ == "__main__":
    unittest.main()
