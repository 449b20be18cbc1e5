"""--topology live: the GPUs of this machine, made up by a libnvidia-ml.so.1 of the tests' (tests/mesh/nvml) and by hwloc
XML in place of the machine (rows B48, B49 of docs/faults.md)."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import trivet

PCI = [f"0000:{0x10 + g:02x}:00.0" for g in range(4)]
PAIRS = "".join(f"link {g} 2 {PCI[g ^ 1]}\n" for g in range(4))


def gpu(g):
    return f"gpu {PCI[g]} GPU-{g} {g // 2} 0 NVIDIA A100-SXM4-40GB\n"


def cpu_machine():
    """hwloc XML of two NUMA nodes; NVML says which of them each GPU is in."""
    sets = 'cpuset="{0}" complete_cpuset="{0}" nodeset="{1}" complete_nodeset="{1}"'
    text = (f'<topology version="2.0"><object type="Machine" os_index="0" {sets.format("0x3", "0x3")} '
            'allowed_cpuset="0x3" allowed_nodeset="0x3" gp_index="1">')
    for p in range(2):
        here = sets.format(f"0x{1 << p}", f"0x{1 << p}")
        text += (f'<object type="Package" os_index="{p}" {here} gp_index="{10 + p}">'
                 f'<object type="NUMANode" os_index="{p}" {here} gp_index="{20 + p}"/>'
                 f'<object type="PU" os_index="{p}" {here} gp_index="{30 + p}"/></object>')
    return text + "</object></topology>"


class Live(unittest.TestCase):
    cpus = os.sched_getaffinity(0)

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="trivet-live-"))
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))
        (cls.folder / "machine.xml").write_text(cpu_machine())
        (cls.folder / "nvml").write_text("".join(map(gpu, range(4))) + PAIRS)
        for g in range(4):  # what a task sees that owns one GPU
            (cls.folder / f"nvml{g}").write_text(gpu(g))

    def environment(self, nvml="nvml", **more):
        here = dict(os.environ, LD_LIBRARY_PATH=os.environ["TRIVET_FAKE_NVML"], FAKE_NVML=str(self.folder / nvml),
                    HWLOC_XMLFILE=str(self.folder / "machine.xml"))
        here.update(more)
        return {name: value for name, value in here.items() if value is not None}

    def map(self, code=0, **changes):
        done = subprocess.run([trivet.BINARY, "map", "--topology", "live", "--tp", "2", "--traffic", "8,4,2", "--json"],
                              capture_output=True, text=True, timeout=20, env=self.environment(**changes))
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout) if code == 0 else done.stderr

    def train(self, wrap, code=0, ranks=4, mpi=True, **flags):
        """A run of two steps under mpiexec, or as threads; wrap: what the shell of each process does before it."""
        metrics = self.folder / "metrics.jsonl"
        metrics.unlink(missing_ok=True)
        flags = dict(trivet.SMALL, data=self.data, metrics=metrics, topology="live", **flags)
        flags["train-iters"] = 2
        command = trivet.command(flags, ranks=ranks, mpi=mpi)
        launcher = command[:3] if mpi else []
        done = subprocess.run([*launcher, "sh", "-c", wrap + ' exec "$@"', "sh", *command[len(launcher):]], capture_output=True,
                              text=True, timeout=60, stdin=subprocess.DEVNULL, env=self.environment())
        self.assertEqual(done.returncode, code, done.stderr)
        records = [json.loads(line) for line in metrics.read_text().splitlines()] if code == 0 else []
        placement = next((r for r in records if r["type"] == "placement"), None)
        return [r["gpu"] for r in placement["ranks"]] if placement else None, placement, done.stderr

    def test_map_takes_the_pairs_that_are_linked(self):
        layout = self.map()
        self.assertEqual([(r["pci"], r["numa"]) for r in layout["placement"]], list(zip(PCI, (0, 0, 1, 1))))
        groups = {}
        for row in layout["placement"]:
            groups.setdefault(tuple(row["coordinate"][:2]), set()).add(row["device"])
        self.assertEqual(sorted(map(sorted, groups.values())), [[0, 1], [2, 3]])
        layout = self.map(CUDA_VISIBLE_DEVICES="GPU-3,2")
        self.assertEqual([r["pci"] for r in layout["placement"]], PCI[2:])

    def test_without_the_library_or_the_driver(self):
        self.assertRegex(self.map(code=2, LD_LIBRARY_PATH=None),
                         r"this node: no GPUs.*libnvidia-ml\.so\.1: cannot open shared object file")
        self.assertRegex(self.map(code=2, nvml="absent"), r"this node: no GPUs.*NVML does not start \(error 9\)")

    def test_b48_all_gpus_visible(self):
        gpus, placement, err = self.train("", tp=2, dp=2)
        self.assertEqual(gpus, PCI)
        self.assertEqual(placement["coordinates"], [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]])
        self.assertNotIn("see different GPUs", err)

    def test_b48_one_gpu_per_task(self):
        """Each task's control group shows its own GPU, number 0 to all of them, in no order of ranks."""
        gpus, _, err = self.train(f'export FAKE_NVML={self.folder}/nvml$(( (PMI_RANK * 3 + 2) % 4 ))'
                                  " CUDA_VISIBLE_DEVICES=0;", tp=2, dp=2)
        self.assertEqual(gpus, [PCI[2], PCI[1], PCI[0], PCI[3]])
        self.assertIn("ranks see different GPUs", err)

    def test_b48_a_list_that_does_not_start_at_0(self):
        gpus, placement, _ = self.train("export CUDA_VISIBLE_DEVICES=3,1;", ranks=2, tp=2)
        self.assertEqual(gpus, [PCI[3], PCI[1]])
        if self.cpus >= {0, 1}:  # each rank by the CPU of its GPU's NUMA node
            self.assertEqual([r["cpus"] for r in placement["ranks"]], ["1", "0"])

    def test_local_ranks_share_what_their_process_sees(self):
        gpus, placement, err = self.train("", mpi=False, tp=2, dp=2)
        self.assertEqual(gpus, PCI)
        self.assertEqual(placement["coordinates"], [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]])
        self.assertNotIn("see different GPUs", err)
        gpus, placement, _ = self.train("export CUDA_VISIBLE_DEVICES=3,1;", ranks=2, mpi=False, tp=2)
        self.assertEqual(gpus, [PCI[3], PCI[1]])
        if self.cpus >= {0, 1}:  # each thread by the CPU of its GPU's NUMA node
            self.assertEqual([r["cpus"] for r in placement["ranks"]], ["1", "0"])
        _, _, err = self.train("export CUDA_VISIBLE_DEVICES=2,3;", code=2, mpi=False, tp=2, dp=2)
        self.assertRegex(err, r"trivet: error: [^\n]*ranks 0 and 2 on .* would share GPU 0000:12:00.0: 4 rank.s. see the same 2")

    def test_b48_b49_more_ranks_than_gpus(self):
        for wrap, words in (("export CUDA_VISIBLE_DEVICES=2,3;", "ranks 0 and 2 on .* would share GPU 0000:12:00.0: "
                             "4 rank.s. see the same 2 GPU"),
                            ('[ "$PMI_RANK" -lt 2 ] || export CUDA_VISIBLE_DEVICES=5;', "GPU 5 where there are 4")):
            _, _, err = self.train(wrap, code=2, tp=2, dp=2)
            self.assertRegex(err, r"trivet: error: [^\n]*" + words)


if __name__ == "__main__":
    unittest.main(verbosity=2)
