"""Where ranks run: --bind, --placement, --probe-links and trivet bench links (rows B50, B51 of docs/faults.md)."""
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import trivet

CPUS = sorted(os.sched_getaffinity(0))
BINDING = re.compile(r"rank (\d+) on (\S+): binding (\w+), CPUs (\S+)")


def cpu_set(text):
    cpus = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


class Placement(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="trivet-placement-"))
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))

    def train(self, start=(), ranks=4, mpi=False, environment=None, code=0, **changes):
        folder = tempfile.mkdtemp(dir=self.folder)
        flags = dict(trivet.SMALL, data=self.data, metrics=Path(folder) / "metrics.jsonl", **{"train-iters": 3,
                     "log-level": "debug"})
        flags.update({name.replace("_", "-"): value for name, value in changes.items()})
        words = [*start, *trivet.command(flags, ranks, mpi)]
        process = subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
                                 env=dict(os.environ, **(environment or {})))
        self.assertEqual(process.returncode, code, process.stdout + process.stderr)
        result = trivet.Result(process, folder)
        result.placement = next((r for r in result.records if r["type"] == "placement"), None)
        result.bindings = {int(rank): (kind, cpu_set(cpus)) for rank, _, kind, cpus in BINDING.findall(result.err)}
        result.warnings = [line for line in result.err.splitlines() if "warning: " in line]
        return result

    def test_b50_one_cpu_for_four_ranks_warns_and_works(self):
        for mpi in (False, True):
            run = self.train(start=["taskset", "-c", str(CPUS[0])], pp=2, dp=2, mpi=mpi)
            self.assertEqual(len(run.warnings), 1, run.err)
            self.assertRegex(run.warnings[0], rf"4 ranks share 1 CPU\(s\) \({CPUS[0]}\)")
            self.assertEqual(run.bindings, {rank: ("shared", {CPUS[0]}) for rank in range(4)})

    def test_b50_as_many_ranks_as_cpus_have_one_each(self):
        for mpi in (False, True):
            run = self.train(ranks=len(CPUS), dp=len(CPUS), global_batch_size=4 * len(CPUS), mpi=mpi)
            self.assertEqual(run.warnings, [])
            self.assertEqual([kind for kind, _ in run.bindings.values()], ["own"] * len(CPUS))
            self.assertEqual(sorted(cpu for _, cpus in run.bindings.values() for cpu in cpus), CPUS)

    def test_b50_slurm_promises_more_than_the_mask_has(self):
        run = self.train(start=["taskset", "-c", str(CPUS[0])], ranks=1, environment={"SLURM_CPUS_PER_TASK": "8"})
        self.assertEqual(len(run.warnings), 1, run.err)
        self.assertIn("SLURM_CPUS_PER_TASK is 8", run.warnings[0])
        self.assertIn(f"1 CPU(s) ({CPUS[0]})", run.warnings[0])

    def test_b51_metrics_and_log_say_the_same(self):
        run = self.train(ranks=2, dp=2)
        self.assertEqual([(r["binding"], cpu_set(r["cpus"])) for r in run.placement["ranks"]],
                         [run.bindings[rank] for rank in range(2)])
        self.assertEqual(len({r["node"] for r in run.placement["ranks"]}), 1)

    def test_b51_what_is_said_is_what_the_kernel_says(self):
        """Threads of the running program, against /proc."""
        flags = dict(trivet.SMALL, data=self.data, **{"train-iters": 100000, "log-level": "debug", "dp": 2,
                     "log-interval": 1})
        process = subprocess.Popen(trivet.command(flags, ranks=2), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        try:
            said = sorted(sorted(cpu_set(BINDING.search(process.stderr.readline())[4])) for _ in range(2))
            while not process.stdout.readline().startswith("step "):
                pass
            masks = [re.search(r"Cpus_allowed_list:\s*(\S+)", (task / "status").read_text())[1]
                     for task in Path(f"/proc/{process.pid}/task").iterdir()]
            for cpus in said:
                self.assertIn(cpus, [sorted(cpu_set(mask)) for mask in masks])
        finally:
            process.kill()
            process.communicate()

    def test_bind_none(self):
        run = self.train(pp=2, dp=2, bind="none")
        self.assertEqual(run.bindings, {rank: ("none", set(CPUS)) for rank in range(4)})
        self.train(pp=2, dp=2, bind="core", code=2)

    @unittest.skipIf(len(CPUS) < 2, "one CPU")
    def test_what_the_launcher_bound_stays(self):
        words = f'exec taskset -c $([ "$PMI_RANK" = 0 ] && echo {CPUS[1]} || echo {CPUS[0]}) "$@"'
        flags = dict(trivet.SMALL, data=self.data, **{"train-iters": 1, "log-level": "debug", "dp": 2})
        command = trivet.command(flags, ranks=2, mpi=True)
        process = subprocess.run([*command[:3], "sh", "-c", words, "sh", *command[3:]], capture_output=True, text=True,
                                 timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(process.returncode, 0, process.stderr)
        found = {int(rank): (kind, cpu_set(cpus)) for rank, _, kind, cpus in BINDING.findall(process.stderr)}
        self.assertEqual(found, {0: ("kept", {CPUS[1]}), 1: ("kept", {CPUS[0]})})

    def test_auto_identity_and_a_file_train_the_same(self):
        file = self.folder / "placement"
        file.write_text("3\n1\n0\n2\n")
        runs = [self.train(pp=2, tp=2, placement=placement) for placement in ("auto", "identity", file)]
        for run in runs[1:]:
            self.assertEqual(run.losses(), runs[0].losses())
            self.assertEqual(run.norms(), runs[0].norms())
        self.assertEqual(runs[2].placement["coordinates"], [[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]])
        for run in runs:  # one node: every order costs the same
            predicted = run.placement["predicted_seconds"]
            self.assertEqual(predicted["chosen"], runs[0].placement["predicted_seconds"]["identity"])
            self.assertEqual(predicted["identity"], predicted["chosen"])
            self.assertGreater(predicted["chosen"]["tensor"], 0)

    def test_sequence_parallelism_cuts_what_stages_send_and_nothing_else(self):
        whole, cut = (self.train(pp=2, tp=2, sequence_parallel=on).placement["predicted_seconds"]["chosen"]
                      for on in (None, True))
        self.assertEqual(cut["tensor"], whole["tensor"])
        self.assertAlmostEqual(cut["pipeline"], whole["pipeline"] / 2, delta=1e-12)

    def test_auto_is_the_default_and_says_what_it_predicts(self):
        run = self.train(pp=2, tp=2)
        self.assertEqual(run.placement["placement"], "auto")
        self.assertRegex(run.out, r"placement: auto, predicted \S+ ms on the wire a step, identity \S+ ms")
        predicted = run.placement["predicted_seconds"]
        self.assertGreater(predicted["chosen"]["total"], 0)
        self.assertLessEqual(predicted["chosen"]["total"], predicted["identity"]["total"])
        self.assertEqual(predicted["split_tensor_groups"], 0)
        self.assertEqual(sorted(run.placement["coordinates"]), [[p, 0, t] for p in (0, 1) for t in (0, 1)])
        again = self.train(pp=2, tp=2, mpi=True)
        self.assertEqual(again.placement["coordinates"], run.placement["coordinates"])
        self.assertEqual(again.losses(), run.losses())

    def test_a_profile_meets_the_placement(self):
        run = self.train(pp=2, tp=2, partition="profile")
        self.assertGreater(run.placement["predicted_seconds"]["chosen"]["total"], 0)

    def test_probed_links(self):
        run = self.train(ranks=2, tp=2, probe_links=True)
        self.assertRegex(run.out, r"links, same node: \S+ us, \S+ GB/s")
        link = run.placement["links"]["same node"]
        # Four layers of four all-reduces of two rounds, 16 micro-batches of 32 tokens and 64 channels.
        predicted = 4 * 4 * 16 * (32 * 64 * 4 / (link["gbps"] * 1e9) + 2 * link["latency_seconds"])
        self.assertAlmostEqual(run.placement["predicted_seconds"]["chosen"]["tensor"], predicted, delta=1e-9 * predicted)
        run = self.train(ranks=2, tp=2, probe_links=True, placement="identity")
        self.assertRegex(run.out, r"links, same node: \S+ us, \S+ GB/s")
        self.train(ranks=2, tp=2, network="/nowhere/topology.conf", code=3)

    def test_network_file(self):
        file = self.folder / "topology.conf"
        file.write_text(f"SwitchName=leaf Nodes={os.uname().nodename}\n")
        run = self.train(pp=2, tp=2, network=file)
        self.assertGreater(run.placement["predicted_seconds"]["chosen"]["total"], 0)
        file.write_text("SwitchName=leaf Nodes=elsewhere[1-4]\n")
        self.train(pp=2, tp=2, network=file, code=2)

    def test_topology_in_place_of_what_is_found(self):
        # Two layers of four all-reduces, 16 micro-batches of 32 tokens and 64 channels; places of 1 GB/s.
        run = self.train(pp=2, tp=2, topology="node:1 cpu:4 gpu-bw:1")
        cost = run.placement["predicted_seconds"]["chosen"]
        self.assertAlmostEqual(cost["tensor"], 2 * 4 * 16 * 32 * 64 * 4 / 1e9, delta=1e-12)
        self.assertAlmostEqual(cost["pipeline"], 16 * 32 * 64 * 4 / 1e9, delta=1e-12)
        for words, said in (("node:2 cpu:2", "--topology has 2 node(s), the ranks are on 1"),
                            ("node:1 cpu:3", "--topology has 3 device(s) on node 0")):
            self.assertIn(said, self.train(pp=2, tp=2, topology=words, code=2).err)
        self.train(pp=2, tp=2, topology="/nowhere.xml", code=3)

    def test_bench_links(self):
        for start, ranks in (([], ["--local-ranks", "2"]), ([trivet.MPIEXEC, "-n", "2"], [])):
            process = subprocess.run([*start, trivet.BINARY, "bench", "links", "--json", "--seconds", "0.1", *ranks],
                                     capture_output=True, text=True, timeout=60)
            self.assertEqual(process.returncode, 0, process.stderr)
            rows = json.loads(process.stdout)
            self.assertEqual([(r["name"], r["unit"]) for r in rows[:2]],
                             [("latency, same node", "us"), ("bandwidth, same node", "GB/s")])
            # of threads by memory; processes may be forbidden to read each other's
            ways = ("memory",) if ranks else ("memory", "messages")
            self.assertTrue(any((f"all_reduce, 2 ranks, by {way}", "GB/s") in [(r["name"], r["unit"]) for r in rows[2:]]
                                for way in ways), rows)
            for row in rows:
                self.assertGreater(row["median"], 0)
        alone = subprocess.run([trivet.BINARY, "bench", "links"], capture_output=True, text=True, timeout=60)
        self.assertEqual(alone.returncode, 2)
        self.assertIn("2 ranks", alone.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
