"""Wrong input: every rank ends within seconds with one clear message and the documented exit code."""
import json
import math
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import trivet


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="trivet-refusals-"))
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))

    def refuse(self, code, words, ranks=1, mpi=False, drop=(), **changes):
        flags = dict(trivet.SMALL, data=self.data)
        flags.update({name.replace("_", "-"): value for name, value in changes.items()})
        for name in drop:
            del flags[name]
        started = time.monotonic()
        result = trivet.run(self.folder, flags, ranks=ranks, mpi=mpi, timeout=60)
        self.assertLess(time.monotonic() - started, 30)
        errors = [line for line in result.err.splitlines() if line.startswith("trivet:") and "warning: " not in line]
        self.assertEqual(result.code, code, f"{flags}\n{result.out}{result.err}")
        self.assertEqual(len(errors), 1, result.err)
        for word in words if isinstance(words, (list, tuple)) else [words]:
            self.assertIn(word, errors[0])

    def test_one_file_for_two_flags(self):
        same, folder = self.folder / "same", self.folder.parent
        self.refuse(2, ["--metrics", "--trace", "same"], metrics=same, trace=self.folder / "." / "same")
        self.refuse(2, ["--log-sample-ids", "--metrics"], log_sample_ids=same,
                    metrics=folder / self.folder.name / ".." / self.folder.name / "same")
        self.refuse(2, ["--export-hf", "--dump-grads"], export_hf=same, dump_grads=same)
        self.refuse(2, ["--metrics", "--data"], metrics=self.data)
        self.assertFalse(same.exists())
        run = trivet.run(self.folder, dict(trivet.SMALL, data=self.data, metrics="/dev/null", trace="/dev/null"))
        self.assertEqual(run.code, 0, run.err)

    def test_flags(self):
        self.refuse(2, "--zero-stage 4", **{"zero-stage": 4})
        self.refuse(2, ["--trace-steps 3", "--trace"], trace_steps=3)
        self.refuse(2, ["--global-batch-size 6", "--micro-batch-size 4", "2 replica(s)", "8 would"], ranks=2,
                    global_batch_size=6, micro_batch_size=4)
        self.refuse(2, ["--zero-group-size 3", "4 replica(s)", "1, 2, 4"], ranks=4, zero_stage=3, zero_group_size=3)
        self.refuse(2, ["--zero-group-size 8", "4 replica(s)", "1, 2, 4"], ranks=4, zero_stage=1, zero_group_size=8)
        self.refuse(2, ["--zero-group-size 2", "--zero-stage 0"], ranks=4, zero_group_size=2)
        self.refuse(2, "--no-such-flag", **{"no-such-flag": True})
        self.refuse(2, "--train-it", **{"train-it": 3})
        for name in ("pp", "tp", "dp"):
            for value in (0, -1):
                self.refuse(2, [f"--{name}", str(value)], **{name: value})
        for name in ("micro-batch-size", "global-batch-size", "seq-length", "train-iters", "num-layers", "hidden-size",
                     "num-attention-heads", "vocab-size", "ffn-hidden-size"):
            self.refuse(2, f"--{name} 0", **{name: 0})
            self.refuse(2, f"--{name} -3", **{name: -3})
        self.refuse(2, "--lr nan", lr="nan")
        self.refuse(2, "--lr fast", lr="fast")
        self.refuse(2, "--num-layers 4x", num_layers="4x")
        self.refuse(2, "--seq-length 99999999999999999999", seq_length="99999999999999999999")
        self.refuse(2, ["--schedule zb-h3", "zb-h1"], schedule="zb-h3")
        self.refuse(2, ["--vpp 1", "interleaved"], schedule="interleaved", vpp=1)
        self.refuse(2, ["--vpp 3", "zb-v"], schedule="zb-v", vpp=3)
        self.refuse(2, ["--vpp 2", "1f1b"], schedule="1f1b", vpp=2)
        self.refuse(2, "--partition even", partition="even")
        self.refuse(2, "--recompute some", recompute="some")
        for name in ("dropout", "attention-dropout", "hidden-dropout", "label-smoothing"):
            self.refuse(2, f"--{name} 1", **{name: 1})
            self.refuse(2, f"--{name} -0.1", **{name: -0.1})
        self.refuse(2, ["--stage-layout", "column 2"], stage_layout="Exttt L")
        self.refuse(2, ["--stage-layout", "--partition"], stage_layout="EttttL", partition="params")
        self.refuse(2, ["gpipe", "16", "4"], schedule="gpipe", slot_limit=4)
        self.refuse(2, ["--memory-limit", "stage 0"], memory_limit=0.5)
        self.refuse(2, "--load-profile", load_profile="x.json")
        self.refuse(2, "--shuffle maybe", shuffle="maybe")
        self.refuse(2, "--lr-decay-style", lr_decay_style="sqrt")
        self.refuse(2, "--min-lr", min_lr=1)
        self.refuse(2, "--data", drop=["data"])
        self.refuse(2, "--train-iters", drop=["train-iters"])

    def test_unknown_flags_under_a_launcher_are_told_once(self):
        self.refuse(2, "--no-such-flag", ranks=4, mpi=True, **{"no-such-flag": True})
        self.refuse(2, ["--pp 3", "4 rank"], ranks=4, mpi=True, pp=3)

    def test_b46_sizes_that_do_not_fit(self):
        self.refuse(2, ["128", "32", "8"], ranks=8, dp=8, global_batch_size=128, micro_batch_size=32)
        self.refuse(2, ["8", "3"], global_batch_size=8, micro_batch_size=3)
        self.refuse(2, ["6", "4"], ranks=4, tp=4, num_attention_heads=6, hidden_size=96)
        self.refuse(2, ["--pp 2", "--tp 2", "--dp 2", "4"], ranks=4, pp=2, tp=2, dp=2)
        self.refuse(2, ["hidden", "heads"], num_attention_heads=3)
        self.refuse(2, ["3", "4"], ranks=4, pp=4, num_layers=3)
        self.refuse(2, ["--seq-length 2147483647", "too large"], dry_run=True, seq_length=2**31 - 1, schedule="gpipe",
                    global_batch_size=2**20, hidden_size=10**7)
        self.refuse(2, ["--partition profile", "6 pieces"], ranks=6, pp=6, partition="profile", num_layers=3)
        self.refuse(2, ["--pp 4, 2 chunk"], ranks=4, pp=4, schedule="zb-v", num_layers=7)
        self.refuse(2, "--global-batch-size", micro_batch_size=3, global_batch_size=7)
        self.refuse(2, "--seq-length", seq_length=64, max_position_embeddings=32)
        self.refuse(2, ["--sequence-parallel", "--tp 4", "1", "30"], ranks=4, tp=4, sequence_parallel=True, seq_length=30)

    def test_b42_ids_beyond_the_vocabulary(self):
        tokens = trivet.walk_tokens(16 * 32 * 4 + 1)
        tokens[777] = 256
        bad = trivet.write_tokens(self.folder / "bad.u16", tokens)
        only_target = trivet.write_tokens(self.folder / "target.u16", trivet.walk_tokens(32) + [300])
        for tp in (1, 2):
            self.refuse(3, ["bad.u16", "777", "256"], ranks=tp, tp=tp, data=bad)
            self.refuse(3, ["target.u16", "32", "300"], ranks=tp, tp=tp, data=only_target)

    def test_b41_files_too_small(self):
        for count in (0, 1, 32):
            path = trivet.write_tokens(self.folder / f"small{count}.u16", trivet.walk_tokens(count))
            self.refuse(3, [f"{count} tokens", "33"], data=path)
            self.refuse(3, [f"{count} tokens", "33"], valid_data=path)

    def test_files(self):
        self.refuse(3, "missing.u16", data=self.folder / "missing.u16")
        odd = self.folder / "odd.u16"
        odd.write_bytes(b"x" * 4001)
        self.refuse(3, ["odd.u16", "4001"], data=odd)
        self.refuse(3, "missing.u16", ranks=4, dp=4, mpi=True, data=self.folder / "missing.u16")
        self.refuse(3, "no.safetensors", init_from=self.folder / "no.safetensors")
        self.refuse(3, "missing.json", config=self.folder / "missing.json",
                    drop=[n for n in trivet.SMALL if n in ("model", "num-layers", "hidden-size", "num-attention-heads",
                                                           "ffn-hidden-size", "vocab-size",
                                                           "untie-embeddings-and-output-weights")])

    def test_damaged_safetensors(self):
        out = self.folder / "good"
        trivet.train(self.data, train_iters=1, export_hf=out)
        good = (out / "model.safetensors").read_bytes()
        for name, data in (("short", good[:-1]), ("long", good + b"x"), ("tiny", good[:5]), ("empty", b""),
                           ("huge", b"\xff" * 8 + good[8:]), ("json", good[:8] + b"[" + good[9:])):
            path = self.folder / f"{name}.safetensors"
            path.write_bytes(data)
            self.refuse(3, f"{name}.safetensors", init_from=path)
        self.refuse(3, "model.safetensors", init_from=out, num_layers=5)

    def config(self, **changes):
        base = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
                "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 256, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0, "max_position_embeddings": 32, "hidden_act": "silu",
                "tie_word_embeddings": False}
        base.update(changes)
        path = self.folder / "config.json"
        path.write_text(json.dumps({k: v for k, v in base.items() if v is not None}))
        return path

    def test_config_keys_we_lack(self):
        shape = [n for n in trivet.SMALL if n in ("model", "num-layers", "hidden-size", "num-attention-heads",
                                                  "ffn-hidden-size", "vocab-size",
                                                  "untie-embeddings-and-output-weights")]
        for key, value in (("rope_scaling", {"type": "linear", "factor": 2.0}), ("attention_bias", True),
                           ("hidden_act", "relu"), ("model_type", "mamba"), ("num_hidden_layers", 0),
                           ("num_hidden_layers", "two"), ("num_attention_heads", -4), ("hidden_size", 10**12)):
            path = self.config(**{key: value})
            flags = dict(trivet.SMALL, data=self.data, config=path)
            for name in shape:
                del flags[name]
            result = trivet.run(self.folder, flags)
            self.assertIn(result.code, (2, 3), f"{key}={value}: {result.err}")
            self.assertIn(key, result.err)
        flags = dict(trivet.SMALL, data=self.data, config=self.config())
        self.assertEqual(trivet.run(self.folder, flags).code, 2)  # both --config and shape flags

    def test_unwritable_outputs(self):
        for name in ("export-hf", "dump-grads"):
            self.refuse(2, "/proc/nothing", ranks=2, dp=2, **{name: "/proc/nothing/out"})
        self.refuse(2, "/proc/nothing", ranks=2, dp=2, metrics="/proc/nothing/m.jsonl")
        self.refuse(2, "/proc/nothing", **{"log-sample-ids": "/proc/nothing/ids"})

    def test_a_full_disk_is_said_and_fails(self):
        self.refuse(1, "/dev/full", metrics="/dev/full")

    def test_a_full_standard_output_is_said_and_fails(self):
        to_full = ["sh", "-c", 'exec "$@" >/dev/full', "sh"]  # of each rank, not of the launcher
        flags = dict(trivet.SMALL, data=self.data, **{"train-iters": 1})
        launched = trivet.command(dict(flags, pp=2), ranks=2, mpi=True)
        for words in ([*launched[:3], *to_full, *launched[3:]], [*to_full, *trivet.command(flags)],
                      *([*to_full, trivet.BINARY, command, "--help"] for command in ("train", "map", "schedule", "bench")),
                      [*to_full, trivet.BINARY, "--help"], [*to_full, trivet.BINARY, "--version"]):
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 1, words)
            self.assertEqual(done.stderr.count("standard output c"), 1, done.stderr)

    def poisoned(self, value):
        """Weights with one number replaced, in a file."""
        out = self.folder / "before-poison"
        if not out.exists():
            trivet.train(self.data, train_iters=1, export_hf=out)
        tensors = trivet.read_safetensors(out / "model.safetensors")
        tensors["model.layers.2.mlp.up_proj.weight"][1][77] = value
        path = self.folder / "poisoned.safetensors"
        trivet.write_safetensors(path, tensors)
        return path

    def test_non_finite_numbers_stop_the_run_on_every_mesh(self):
        for value in (math.nan, math.inf):
            path = self.poisoned(value)
            self.refuse(4, "step 1", init_from=path)
            self.refuse(4, "step 1", ranks=4, pp=2, dp=2, init_from=path)
            self.refuse(4, "step 1", ranks=4, tp=2, dp=2, mpi=True, init_from=path)
            self.refuse(4, "step 1", ranks=8, pp=2, tp=2, dp=2, init_from=path, schedule="gpipe")

    def test_metrics_end_says_failed(self):
        flags = dict(trivet.SMALL, data=self.data, **{"init-from": self.poisoned(math.nan)})
        folder = tempfile.mkdtemp()
        result = trivet.run(folder, flags)
        self.assertEqual(result.records[-1]["type"], "end")
        self.assertEqual(result.records[-1]["status"], "failed")
        self.assertEqual(result.steps, [])

    def test_args_file(self):
        path = self.folder / "args"
        path.write_text("# a comment\n--num-layers 2 --bogus 1\n")
        self.refuse(2, ["args", "--bogus"], args=path)
        path.write_text("--train-iters 7 # seven\n--lr 1e-4\n")
        flags = {k: v for k, v in trivet.SMALL.items() if k != "train-iters"}
        folder = tempfile.mkdtemp()
        result = trivet.run(folder, dict(flags, data=self.data, args=path))
        self.assertEqual((len(result.steps), result.steps[-1]["step"]), (7, 7))


class KilledRanks(unittest.TestCase):
    """A rank that dies or falls silent ends the job."""

    def start(self, timeout):
        self.folder = Path(tempfile.mkdtemp(prefix="trivet-killed-"))
        data = trivet.write_tokens(self.folder / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))
        flags = dict(trivet.SMALL, data=data, pp=2, tp=2, timeout=timeout, metrics=self.folder / "metrics.jsonl")
        flags["train-iters"] = 10**7
        process = subprocess.Popen(trivet.command(flags, ranks=4, mpi=True), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            metrics = self.folder / "metrics.jsonl"
            if metrics.exists() and metrics.read_text().count('"step"') > 6:
                break
            time.sleep(0.1)
        listing = subprocess.run(["pgrep", "-f", str(data)], capture_output=True, text=True).stdout.split()
        ranks = [int(p) for p in listing if "mpiexec" not in Path(f"/proc/{p}/cmdline").read_text()
                 and "hydra" not in Path(f"/proc/{p}/cmdline").read_text()]
        self.assertEqual(len(ranks), 4)
        return process, sorted(ranks)

    def test_a_killed_rank_ends_the_job(self):
        process, ranks = self.start(60)
        os.kill(ranks[2], signal.SIGKILL)
        process.communicate(timeout=20)
        self.assertNotEqual(process.returncode, 0)
        for rank in ranks:
            self.assertFalse(Path(f"/proc/{rank}").exists())

    def test_a_stopped_rank_is_named_when_the_deadline_passes(self):
        process, ranks = self.start(3)
        os.kill(ranks[1], signal.SIGSTOP)
        _, err = process.communicate(timeout=40)
        lines = [line for line in err.splitlines() if line.startswith("trivet:") and "warning: " not in line]
        self.assertEqual(process.returncode, 5, err)
        self.assertEqual(len(lines), 1, err)
        where = r"(step \d+, stage \d, .+|stage \d, (for|back)ward of micro-batch \d+)"
        self.assertRegex(lines[0], r"(pipe (for|back)ward|tensor|data|world) axis, rank \d: \w+ of \d+ elements: "
                                   rf"no answer from ranks? [\d, ]+ in 3 s \(while: {where}\)$")

    def stop_a_rank(self, is_time):
        """Start four ranks, stop one when is_time(process) returns."""
        data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(513))
        flags = dict(trivet.SMALL, data=data, pp=4, timeout=3, partition="profile", **{
            "hidden-size": 512, "ffn-hidden-size": 2048, "seq-length": 256, "micro-batch-size": 4, "log-level": "debug"})
        process = subprocess.Popen(trivet.command(flags, ranks=4, mpi=True), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)
        is_time(process)
        ranks = []
        while len(ranks) < 4:
            ranks = subprocess.run(["pgrep", "-f", f"^{trivet.BINARY} .*{data}"], capture_output=True,
                                   text=True).stdout.split()
        os.kill(min(map(int, ranks)), signal.SIGSTOP)
        _, err = process.communicate(timeout=40)
        lines = [line for line in err.splitlines() if line.startswith("trivet: error")]
        self.assertEqual(len(lines), 1, err)
        self.assertIn("no answer from", lines[0])
        self.assertIn("3 s", lines[0])
        self.assertNotIn("leaving", lines[0])
        return process.returncode, lines[0]

    def test_a_rank_stopped_while_mpi_starts_ends_the_job(self):
        code, said = self.stop_a_rank(lambda process: None)
        self.assertIn(code, (5, 9))  # mpiexec: of the rank that left, or of those it ended then
        self.assertIn("rank", said)

    def test_a_rank_stopped_before_the_first_step_is_named_once(self):
        """Whatever it was doing, as making a communicator."""
        def bound(process):
            said = []
            while sum(": binding " in line for line in said) < 4:
                said.append(process.stderr.readline())
                self.assertNotEqual(said[-1], "", said)
        for _ in range(2):
            code, said = self.stop_a_rank(bound)
            self.assertEqual(code, 5)
            self.assertIn(" axis, rank ", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
