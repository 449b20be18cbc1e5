"""What a run does when files change under it and memory runs out: a sentence, an exit code, and no rank is left."""
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import unittest
from array import array
from pathlib import Path

import trivet
from long_run import Run

TOKENS = 16 * 32 * 40 + 1  # ten pages of 16-bit ids


class Files(unittest.TestCase):
    """The file of tokens, while it is trained on."""

    def setUp(self):
        self.data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(TOKENS))

    def run_and(self, change, **changes):
        run = Run(self.data, **changes)
        run.wait_for_steps()
        change()
        result = run.finish()
        self.assertEqual(run.left(), [])
        return result, [line for line in result.err.splitlines() if line.startswith("trivet: error")]

    def test_cut_short(self):
        for mesh in ({}, {"mpi": False}, {"pp": 1, "tp": 1, "ranks": 2}):
            self.setUp()
            result, said = self.run_and(lambda: os.truncate(self.data, 4096), **mesh)
            self.assertEqual(result.code, 3, result.err)
            self.assertEqual(len(said), 1, result.err)
            self.assertIn(f"{self.data}: the file has become shorter while it was read", said[0])

    def test_written_to(self):
        def write():
            with open(self.data, "r+b") as file:
                file.write(array("H", [300] * TOKENS).tobytes())
        result, said = self.run_and(write)
        self.assertEqual((result.code, len(said)), (3, 1), result.err)
        self.assertIn("--data: token 300 is beyond the vocabulary of 256; a file has changed", said[0])

    def test_removed_or_replaced_it_is_still_there(self):
        want = trivet.train(self.data, pp=2, tp=2, train_iters=15).losses()
        run = Run(self.data, train_iters=15)
        run.wait_for_steps()
        os.unlink(self.data)
        trivet.write_tokens(self.data, [300])
        result = run.finish()
        self.assertEqual((result.code, result.losses()), (0, want), result.err)


class ShortenedFiles(unittest.TestCase):
    """Files that are cut as soon as they are mapped: everything that reads a model, tokens or text."""

    @classmethod
    def setUpClass(cls):
        cls.data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(TOKENS))
        cls.made = trivet.new_folder()
        trivet.train(cls.data, train_iters=1, save=cls.made / "ckpt", export_hf=cls.made / "hf")

    def setUp(self):
        self.folder = trivet.new_folder()
        for name in ("ckpt", "hf"):
            shutil.copytree(self.made / name, self.folder / name)
        shutil.copy(self.data, self.folder / "walk.u16")

    def cut(self, file, size, words):
        """`words` with a file of that name cut; who is told of it says so, and that is all."""
        env = dict(os.environ, LD_PRELOAD=os.environ["TRIVET_SHORTEN"], TRIVET_SHORTEN_FILE=f"/{file}",
                   TRIVET_SHORTEN_BYTES=str(size))
        for _ in range(3):
            done = subprocess.run(list(map(str, words)), env=env, capture_output=True, text=True, timeout=60, cwd=self.folder)
            # MPICH's proxy notes 1 for a rank whose socket has closed, until it sees its exit code; at times it stays at that.
            if done.returncode != 1 or "EXIT STRING: Hangup (signal 1)" not in done.stdout:
                break
        said = [line for line in done.stderr.splitlines() if line.startswith("trivet: error")]
        self.assertEqual((done.returncode, len(said)), (3, 1), (words, done.stdout, done.stderr))
        self.assertIn(f"{file}: the file has become shorter while it was read", said[0])

    def test_by_commands(self):
        shard = "shard-00000.safetensors"
        for file, size, words in ((shard, 0, ["convert", "ckpt", "--to", "out"]),
                                  (shard, 8192, ["convert", "ckpt", "--to", "out"]),
                                  ("model.safetensors", 8192, ["convert", "hf", "--to", "out"]),
                                  ("config.json", 0, ["convert", "hf", "--to", "out"]),
                                  ("model.safetensors", 0, ["inspect", "hf"]),
                                  (shard, 8192, ["inspect", "ckpt"]),
                                  ("walk.u16", 4096, ["inspect", "walk.u16", "--data-format", "u16"]),
                                  ("model.safetensors", 8192, ["sample", "hf", "--prompt-ids", "1,2"]),
                                  ("walk.u16", 4096, ["tokenize", "--input", "walk.u16", "--output", "out.u16"])):
            with self.subTest(words=words, size=size):
                self.setUp()
                self.cut(file, size, [trivet.BINARY, *words])
                left = [path.name for path in (self.folder / "out").glob("*.safetensors*")]
                self.assertEqual(left, [])

    def test_by_a_run_that_starts(self):
        shard = "shard-00000.safetensors"
        hf = {"config": "hf/config.json", "init_from": "hf/model.safetensors"}
        for file, size, ranks, mpi, flags in ((shard, 0, 1, False, {"load": "ckpt"}), (shard, 8192, 1, False, {"load": "ckpt"}),
                                              (shard, 8192, 2, False, {"load": "ckpt"}), (shard, 8192, 2, True, {"load": "ckpt"}),
                                              ("index.json", 0, 1, True, {"load": "ckpt"}),
                                              ("model.safetensors", 8192, 1, True, hf),
                                              ("walk.u16", 4096, 1, True, {}), ("walk.u16", 4096, 1, False, {})):
            with self.subTest(file=file, size=size, ranks=ranks, mpi=mpi):
                self.setUp()
                shape = {} if not flags else {"data": "walk.u16", "data_format": "u16", "train_iters": 2, "threads": 1}
                run = {name.replace("_", "-"): value for name, value in (shape | flags).items()}
                run = run or dict(trivet.small_flags({}), data="walk.u16")
                self.cut(file, size, trivet.command(run, ranks, mpi))


# In a disk of its own: $1 a folder, $2 what happens to the disk behind a save, then the run's words.
DISK = """
mount -t tmpfs -o size=24m none "$1" || exit 77
cd "$1" && what=$2 && shift 2
"$@" & run=$!
until [ "$(ls ckpt 2>/dev/null | grep -c "^step-")" -ge 2 ]; do sleep 0.05; done
until eval "$what" 2>/dev/null; do sleep 0.02; done
code=0; wait $run || code=$?
mount -o remount,rw "$PWD"; rm -f filler; ls ckpt >&2
exit $code
"""


class Disk(unittest.TestCase):
    def test_full_or_read_only_while_a_run_saves(self):
        data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(TOKENS))
        flags = dict(trivet.small_flags({"train_iters": 10**7, "save": "ckpt", "save_interval": 1, "keep": 2, "pp": 2}),
                     data=data)
        for what, reason in (("mount -o remount,ro .", "Read-only file system"),
                             ("head -c 24m /dev/zero >filler; true", "No space left on device")):
            words = ["unshare", "--mount", "bash", "-c", DISK, "disk", trivet.new_folder(), what,
                     *trivet.command(flags, ranks=2, mpi=True)]
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)
            if done.returncode == 77 or "unshare failed" in done.stderr:
                self.skipTest(done.stderr)
            said = [line for line in done.stderr.splitlines() if line.startswith("trivet: error")]
            self.assertEqual((done.returncode, len(said)), (1, 1), done.stderr)
            self.assertIn(reason, said[0])
            whole = [line for line in done.stderr.splitlines() if line.startswith("step-")]
            self.assertGreaterEqual(len(whole), 2, done.stderr)


class Stragglers(unittest.TestCase):
    def test_a_rank_that_is_slow_is_named(self):
        """It is stopped four fifths of the time, which stretches what it computes."""
        data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(TOKENS))
        run = Run(data, ranks=2, pp=1, tp=1, placement="identity", exit_after=0.5, log_interval=3, micro_batch_size=4,
                  hidden_size=128)
        run.wait_for_steps()
        said = iter(run.process.stderr.readline, "")
        slow = run.ranks()[1]
        stop = threading.Event()
        pulses = threading.Thread(target=pulse, args=(slow, stop))
        pulses.start()
        try:
            line = next(line for line in said if "times as long" in line)
        finally:
            stop.set()
            pulses.join()
        words = words_of(slow).split("\0")
        rank = next(int(word.split("=")[1]) for word in words if word.startswith("PMI_RANK="))
        os.kill(slow, signal.SIGTERM)
        result = run.finish()
        self.assertEqual(result.code, 75, result.err)
        self.assertIn(f"warning: rank {rank} of node ", line)
        self.assertIn(f"(stage 0, replica {rank}, tensor rank 0) computes ", line)
        records = [r for r in result.records if r["type"] == "ranks"]
        step = int(re.search(r"for 3 intervals up to step (\d+)", line)[1])
        last = [r for r in records if r["step"] <= step][-3:]
        self.assertEqual([r["steps"] for r in last], [3, 3, 3])
        for r in last:
            self.assertGreaterEqual(r["over_median"][rank], 1.3)
            self.assertEqual(r["over_median"][1 - rank], 1)
            self.assertAlmostEqual(r["compute_seconds"][rank] / r["compute_seconds"][1 - rank],
                                   r["over_median"][rank], places=9)


def words_of(process):
    """Its environment: words between zeros."""
    return "\0" + Path(f"/proc/{process}/environ").read_text()


def pulse(process, stop):
    while not stop.is_set():
        os.kill(process, signal.SIGSTOP)
        time.sleep(0.04)
        os.kill(process, signal.SIGCONT)
        time.sleep(0.01)


class Memory(unittest.TestCase):
    def test_it_ends_in_the_middle_of_training(self):
        """A larger batch is another schedule. From a signal on, one rank, or all as threads, gets no memory for it."""
        data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(TOKENS))
        os.environ["LD_PRELOAD"] = os.environ["TRIVET_NO_MEMORY"]
        self.addCleanup(os.environ.pop, "LD_PRELOAD")
        for mpi, of in ((True, 1), (True, 3), (False, 0)):
            run = Run(data, mpi=mpi, pp=2, tp=1, hidden_size=32, ffn_hidden_size=64, global_batch_size=64,
                      rampup_batch_size="8 8 10000")
            run.wait_for_steps()
            rank = next(rank for rank in run.ranks() if not mpi or f"\0PMI_RANK={of}\0" in words_of(rank))
            os.kill(rank, signal.SIGUSR2)
            result = run.finish()
            said = [line for line in result.err.splitlines() if line.startswith("trivet: error")]
            self.assertEqual((result.code, len(said), run.left()), (1, 1, []), result.err)
            who = f"rank {of} " if mpi else r"rank \d "
            self.assertRegex(said[0], f"error: {who}\\(stage \\d, replica \\d, tensor rank 0\\): .*; in use, in bytes: "
                                      "parameters [1-9][0-9]*, gradients [1-9]")
            self.assertEqual(result.records[-1]["type"], "step" if mpi and of else "end")

    def test_one_rank_has_too_little(self):
        """All end at once, with what was asked for and what is in use."""
        data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(513))
        flags = dict(trivet.small_flags({"hidden_size": 1024, "ffn_hidden_size": 4096, "train_iters": 1, "pp": 2,
                                          "stage_layout": "E|ttttL"}),
                     data=data)
        words = trivet.command(flags, ranks=2, mpi=True)
        limited = words[:3] + ["sh", "-c", 'if [ "$PMI_RANK" = 1 ]; then ulimit -v 600000; fi; exec "$@"', "sh"]
        done = subprocess.run(limited + words[3:], capture_output=True, text=True, timeout=60)
        trivet.assert_refused(self, done, 1, ["rank 1 (stage 1, replica 0, tensor rank 0): no room for ", " bytes of ",
                                              "; in use, in bytes: parameters ", "gradients "])


if __name__ == "__main__":
    unittest.main(verbosity=2)
