"""A run that is told to stop: all ranks agree on the step, and exit with 75; a second Ctrl-C leaves at once."""
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

import trivet
from long_run import MANY, RUN_SECONDS, Run

ALL = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))

    def assert_stopped(self, result, by, has_code=True):
        if has_code:
            self.assertEqual(result.code, 75, result.err)
        said = [line for line in result.err.splitlines() if f"stopped by {by} after step " in line]
        self.assertEqual(len(said), 1, result.err)
        self.assertNotIn("error", result.err)
        steps = [step["step"] for step in result.steps]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))
        end = result.records[-1]
        self.assertEqual((end["type"], end["status"], end["step"]), ("end", "stopped", steps[-1]))
        self.assertIn(f"after step {steps[-1]} of {MANY}", said[0])

    def check_resumed(self, stopped, save, mpi):
        """It goes on behind its last step, and nothing shows that it ever ended."""
        last = stopped.steps[-1]["step"] + 3
        folders = trivet.new_folder(), trivet.new_folder()
        flags = {"pp": 2, "tp": 2, "train_iters": last, "lr_decay_iters": 100}
        resumed = trivet.train(self.data, mpi=mpi, save=save, load="auto", export_hf=folders[0],
                               metrics=stopped.folder / "metrics.jsonl", **flags)
        straight = trivet.train(self.data, export_hf=folders[1], **flags)
        records = trivet.Result(subprocess.CompletedProcess([], 0, "", ""), stopped.folder)
        self.assertIn(f"continuing after step {last - 3} from ", resumed.out + resumed.err)
        self.assertEqual([step["step"] for step in records.steps], list(range(1, last + 1)))
        self.assertEqual((records.losses(), records.norms()), (straight.losses(), straight.norms()))
        self.assertEqual(*[(folder / "model.safetensors").read_bytes() for folder in folders])

    def check_stop(self, number, tell, mpi=True, resumes=True, has_code=True):
        save = trivet.new_folder() / "checkpoints"
        run = Run(self.data, mpi=mpi, save=save, lr_decay_iters=100)
        run.wait_for_steps()
        tell(run)
        stopped = run.finish()
        self.assert_stopped(stopped, number.name, has_code)
        step = stopped.steps[-1]["step"]
        self.assertEqual([(r["step"], Path(r["path"]).name) for r in stopped.records if r["type"] == "save"],
                         [(step, f"step-{step:08}")])
        self.assertEqual(os.listdir(save), [f"step-{step:08}"])
        if resumes:
            self.check_resumed(stopped, save, mpi)

    def test_one_rank_is_told(self):
        for i, number in enumerate(ALL):
            self.check_stop(number, lambda run: os.kill(run.ranks()[3 - i], number), resumes=i == 1)

    def test_the_launcher_is_told_and_tells_all(self):
        """The ranks' codes are not seen: MPICH 4.0.2's mpiexec often ends with 0, or falls over, after it has passed
        a signal on, whatever they are."""
        for number in ALL:
            self.check_stop(number, lambda run: os.kill(run.process.pid, number), resumes=number == signal.SIGTERM,
                            has_code=False)

    def test_all_ranks_are_told_one_after_the_other(self):
        self.check_stop(signal.SIGTERM, lambda run: [os.kill(rank, signal.SIGTERM) for rank in run.ranks()])

    def test_threads_are_told(self):
        self.check_stop(signal.SIGTERM, lambda run: os.kill(run.process.pid, signal.SIGTERM), mpi=False)

    def test_threads_and_one_rank(self):
        for ranks, mesh in ((4, {}), (1, {"pp": 1, "tp": 1})):
            run = Run(self.data, mpi=False, ranks=ranks, **mesh)
            run.wait_for_steps()
            os.kill(run.process.pid, signal.SIGUSR1)
            result = run.finish()
            self.assert_stopped(result, "SIGUSR1")
            self.assertIn("SIGUSR1: stops after this step", result.err)

    def test_a_signal_before_the_first_step_waits_for_it(self):
        run = Run(self.data, partition="profile", log_level="debug")
        while ": binding " not in run.process.stderr.readline():
            pass
        os.kill(run.ranks()[1], signal.SIGTERM)
        result = run.finish()
        self.assert_stopped(result, "SIGTERM")
        self.assertEqual(len(result.steps), 1)

    def test_time_is_up(self):
        for words in ({"exit_after": 1 / 120}, {"exit_duration_in_mins": 1e-9}):
            result = Run(self.data, **words).finish()
            self.assert_stopped(result, "--exit-after")
        self.assertEqual(len(result.steps), 1)

    def test_a_wish_in_the_last_step_changes_nothing(self):
        result = Run(self.data, train_iters=1, exit_after=1e-9).finish()
        self.assertEqual((result.code, result.records[-1]["status"]), (0, "ok"), result.err)

    def test_ctrl_c_says_what_happens(self):
        run = Run(self.data, mpi=False, terminal=True)
        run.wait_for_steps()
        run.type(b"\x03")
        run.process.wait(timeout=RUN_SECONDS)
        said = run.read_terminal()
        self.assertEqual(run.process.returncode, 75, said)
        self.assertIn("SIGINT: stops after this step; a second Ctrl-C leaves at once", said)
        self.assertIn("stopped by SIGINT after step", said)

    def test_a_second_ctrl_c_leaves_at_once(self):
        """In a step that takes long: it never ends."""
        for mpi in (False, True):
            run = Run(self.data, mpi=mpi, ranks=2, pp=2, tp=1, hidden_size=512, ffn_hidden_size=2048,
                      global_batch_size=2**16)
            while not run.process.stdout.readline().startswith("data: "):
                self.assertIsNone(run.process.poll())
            rank = run.ranks()[0]
            for _ in range(100):  # two at the same time are one
                if run.process.poll() is None and rank in run.ranks():
                    os.kill(rank, signal.SIGINT)
                    time.sleep(0.1)
            self.assertEqual(run.finish().code, 130)


if __name__ == "__main__":
    unittest.main(verbosity=2)
