"""Starting and leaving under a launcher: one that MPI does not speak to is refused, and told of once; with several
nodes (MPICH can be made to see two in one machine) runs end cleanly without MPI_Finalize."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import trivet

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "launch"
LAUNCHERS = {  # its variables: number of processes, rank; and the cure
    "SLURM_STEP_NUM_TASKS": ("SLURM_PROCID", "srun --mpi=pmi2"),
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "mpiexec of the MPI that trivet was built with"),
}


class Launcher(unittest.TestCase):
    def run_with(self, environment, ranks=1, **changes):
        folder = Path(tempfile.mkdtemp(prefix="trivet-launcher-"))
        data = trivet.write_tokens(folder / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))
        flags = dict(trivet.SMALL, data=data, **changes)
        flags["train-iters"] = 1
        return subprocess.run(trivet.command(flags, ranks, mpi=ranks > 1), capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env=dict(os.environ, **environment))

    def run_as(self, size_variable, size, rank):
        return self.run_with({size_variable: str(size), LAUNCHERS[size_variable][0]: str(rank)})

    def test_many_processes_of_one_rank_are_refused_once(self):
        for variable, (_, cure) in LAUNCHERS.items():
            first, second = self.run_as(variable, 4, 0), self.run_as(variable, 4, 1)
            self.assertEqual((first.returncode, second.returncode), (2, 2))
            self.assertRegex(first.stderr,
                             rf"\Atrivet: error: the launcher started 4 processes \({variable}\)[^\n]*{cure}\n\Z")
            self.assertEqual(second.stderr, "")

    def test_one_process_is_no_reason(self):
        for variable in LAUNCHERS:
            done = self.run_as(variable, 1, 0)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_leaving_two_nodes(self):
        two_nodes = {"MPIR_CVAR_NUM_CLIQUES": "2"}
        done = self.run_with(two_nodes, ranks=4, pp=2)
        self.assertEqual((done.returncode, trivet.without_warnings(done.stderr)), (0, ""))
        self.assertIn("\nworld ", done.stdout)  # the last table, whole
        done = self.run_with(two_nodes, ranks=4, pp=3)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"\Atrivet: error: --pp 3 [^\n]*\n\Z")

    def test_the_example(self):
        folder = Path(tempfile.mkdtemp(prefix="trivet-launcher-"))
        (folder / "hosts").write_text("localhost:8\n")
        (folder / "corpus.txt").write_text("round and round it goes, " * 500)
        done = subprocess.run([EXAMPLES / "mpirun.sh", "hosts", "corpus.txt", "--train-iters", "1",
                               "--global-batch-size", "8"], capture_output=True, text=True, timeout=60, cwd=folder,
                              stdin=subprocess.DEVNULL, env=dict(os.environ, TRIVET=trivet.BINARY))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"status":"ok"', (folder / "trivet.jsonl").read_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
