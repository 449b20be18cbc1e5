"""Several nodes on one machine (scripts/testbed, scripts/slurm-testbed): the same losses as local ranks, a clean end
every time, and an end in time when a rank dies. Exits with 77 where nodes cannot be made."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path

import trivet

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
MESH = {"pp": 2, "tp": 2}
REPEATS = 5  # MPI_Finalize hung in about half of the runs
RUN_SECONDS = 25  # a run takes about 1 s

LINK = """# rank 0 sends 5 MB to rank 1, which prints the rate in Mbit/s
import os, socket, time
if os.environ["PMI_RANK"] == "0":
    server = socket.create_server(("node0", 5000))
    server.accept()[0].sendall(bytes(5000000))
else:
    for _ in range(100):
        try:
            peer = socket.create_connection(("node0", 5000))
            break
        except OSError:
            time.sleep(0.05)
    received, started = len(peer.recv(65536)), time.monotonic()
    while data := peer.recv(65536):
        received += len(data)
    print(8e-6 * received / (time.monotonic() - started))
"""

# A requeued job starts after two minutes; here as soon as nothing of its first steps is left.
QUEUE = """
state() {{ scontrol show job 1; }}
sbatch {script} corpus.txt --train-iters 30 --seq-length 16 --global-batch-size 8 --micro-batch-size 1 --threads 1
until grep -qs '"step":3' trivet-1.jsonl; do sleep 0.1; done
scancel --batch --signal=USR1 1
until state | grep -q Reason=BeginTime && ! pgrep -f 'slurmstepd: .1.'; do sleep 0.1; done
scontrol update jobid=1 starttime=now
until state | grep -qE 'JobState=(COMPLETED|FAILED)'; do sleep 0.1; done
state
"""

TORCHRUN = """# What torchrun's documentation promises of these flags: RANK of each local rank, and the GPU it would choose.
import argparse, json, os, socket
flags = argparse.ArgumentParser(allow_abbrev=False)
for name, kind in (("nnodes", int), ("node-rank", int), ("nproc-per-node", int), ("master-addr", str), ("master-port", int)):
    flags.add_argument("--" + name, type=kind, required=True)
flags.add_argument("script")
flags.add_argument("arguments", nargs=argparse.REMAINDER)
o = flags.parse_args()
assert o.nnodes == 2 and o.master_addr == "node0" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
for local, gpu in enumerate(os.environ["CUDA_VISIBLE_DEVICES"].split(",")[:o.nproc_per_node]):
    print(json.dumps([socket.gethostname(), int(gpu), o.node_rank * o.nproc_per_node + local, o.arguments]))
"""


def reason_to_skip(script):
    done = subprocess.run([SCRIPTS / script, "1", "--", "true"], capture_output=True, text=True, timeout=60)
    if done.returncode not in (0, 77):
        raise AssertionError(f"{script}: exit {done.returncode}: {done.stderr}")
    return done.stderr.strip() if done.returncode == 77 else None


def processes_with(words):
    return [int(p) for p in subprocess.run(["pgrep", "-f", words], capture_output=True, text=True).stdout.split()]


class Nodes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="trivet-testbed-"))
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(16 * 32 * 4 + 1))
        cls.expected = trivet.train(cls.data, dp=1, train_iters=5, **MESH).losses()
        cls.expected_of_eight = trivet.train(cls.data, dp=2, train_iters=5, **MESH).losses()

    def start(self, start, **changes):
        """A training of 5 steps; start: the script's words and the launcher's."""
        flags = dict(trivet.SMALL, data=self.data, metrics=self.folder / "metrics.jsonl", **MESH)
        flags["train-iters"] = 5
        flags.update({name.replace("_", "-"): value for name, value in changes.items()})
        (self.folder / "metrics.jsonl").unlink(missing_ok=True)
        words = [SCRIPTS / start[0], *start[1:], *trivet.command(flags)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                text=True)

    def finish(self, process, seconds=RUN_SECONDS):
        """Its exit code, output and errors, once it has ended in time and left no process behind."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.fail(f"no end after {seconds} s; metrics: {(self.folder / 'metrics.jsonl').read_text()[-200:]}")
        self.assertEqual(processes_with(str(self.data)), [])
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def same_losses(self, start):
        done = self.finish(self.start(start))
        self.assertEqual((done.returncode, trivet.without_warnings(done.stderr)), (0, ""))
        self.assertIn("\nworld ", done.stdout)  # all output has come: the last table's last row
        result = trivet.Result(done, self.folder)
        self.assertEqual(result.losses(), self.expected)
        self.assertEqual(result.records[-1]["status"], "ok")

    def layout(self, start):
        """The node of each coordinate, in a run of 8 ranks with the losses of local ranks."""
        done = self.finish(self.start(start, dp=2, placement="auto"))
        self.assertEqual((done.returncode, trivet.without_warnings(done.stderr)), (0, ""))
        result = trivet.Result(done, self.folder)
        self.assertEqual(result.losses(), self.expected_of_eight)
        placement = next(r for r in result.records if r["type"] == "placement")
        self.assertEqual(placement["predicted_seconds"]["split_tensor_groups"], 0)
        nodes = {tuple(at): rank["node"] for at, rank in zip(placement["coordinates"], placement["ranks"])}
        self.assertEqual(len(nodes), 8)
        return nodes

    def check_groups(self, start):
        """4 replicas, 2 on each of 2 nodes, share in groups of 2: between nodes go the sums of the copies alone."""
        for zero in (1, 3):
            done = self.finish(self.start(start, pp=1, tp=1, dp=4, zero_stage=zero))
            self.assertEqual((done.returncode, trivet.without_warnings(done.stderr)), (0, ""))
            self.assertIn(f"ZeRO stage {zero} over groups of 2 of 4 replicas", done.stdout)
            result = trivet.Result(done, self.folder)
            self.assertEqual(result.records[0]["zero_group_size"], 2)
            here = trivet.train(self.data, dp=4, train_iters=5, zero_stage=zero, zero_group_size=2)
            self.assertEqual(result.losses(), here.losses())
            sent = result.pipeline["sent_bytes"]
            self.assertEqual(sent["measured"]["sum"], sent["predicted"]["sum"])
            params = result.pipeline["memory_bytes"][0]["predicted"]["parameters"] * (1 if zero < 3 else 2)
            self.assertEqual(sent["predicted"]["between_nodes"]["data"], 2 * params)

    def emitted(self, *kinds):
        """`trivet map` for two nodes of four ranks whose replicas fill a node each: (node, device) of each mesh rank; it
        writes a file for each kind."""
        emit = ",".join(f"{kind}:{self.folder / kind}" for kind in kinds)
        done = subprocess.run([trivet.BINARY, "map", "--topology", "node:2 gpu:4 link:nvswitch", *self.MESH_WORDS, "--json",
                               "--emit", emit], capture_output=True, text=True, timeout=RUN_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = sorted(json.loads(done.stdout)["placement"], key=lambda row: row["coordinate"])
        return [(row["node"], row["device"]) for row in rows]

    MESH_WORDS = ["--pp", "2", "--tp", "2", "--dp", "2", "--traffic", "1e12,1e10,1"]

    def output(self, *words, **environment):
        done = subprocess.run([SCRIPTS / words[0], *words[1:]], capture_output=True, text=True, timeout=RUN_SECONDS,
                              env=dict(os.environ, **environment))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()

    def wait_for_steps(self):
        deadline = time.monotonic() + RUN_SECONDS
        metrics = self.folder / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count('"step"') < 6:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)


def ranks_of(data):
    return sorted(p for p in processes_with(str(data))
                  if Path(f"/proc/{p}/comm").read_text().strip() == Path(trivet.BINARY).name)


class Testbed(Nodes):
    WORDS = ["testbed", "2", "--per-node", "2"]

    def test_losses_and_a_clean_end(self):
        for _ in range(REPEATS):
            self.same_losses([*self.WORDS, "--"])
            self.same_losses(["testbed", "1", "--per-node", "4", "--"])  # over TCP too
        self.same_losses([*self.WORDS, "--order", "cyclic", "--"])
        self.same_losses([*self.WORDS, "--rate", "none", "--"])

    def test_replicas_share_inside_nodes(self):
        self.check_groups([*self.WORDS, "--"])

    def test_block_and_cyclic_arrival_give_the_same_mesh(self):
        """Also row B52: no tensor group leaves its node, whatever the order; the same losses under mpiexec."""
        words = ["testbed", "2", "--per-node", "4", "--order"]
        block = self.layout([*words, "block", "--"])
        self.assertEqual(self.layout([*words, "cyclic", "--"]), block)
        self.assertEqual(sorted(block.values()), ["node0"] * 4 + ["node1"] * 4)
        self.assertEqual(trivet.train(self.data, dp=2, train_iters=5, mpi=True, **MESH).losses(),
                         self.expected_of_eight)

    def test_ranks_lie_as_asked(self):
        for order, expected in (("block", "0 0 1 1"), ("cyclic", "0 1 0 1")):
            done = subprocess.run([SCRIPTS / "testbed", "2", "--per-node", "2", "--order", order, "--", "sh", "-c",
                                   'echo "$PMI_RANK $(hostname)"'], capture_output=True, text=True, timeout=RUN_SECONDS)
            lines = sorted(done.stdout.splitlines())
            self.assertEqual(lines, [f"{rank} node{node}" for rank, node in enumerate(expected.split())], done.stderr)

    def test_emitted_host_file_under_mpiexec(self):
        places = self.emitted("mpich-hostfile")
        lines = self.output("testbed", "2", "--per-node", "4", "--hosts", self.folder / "mpich-hostfile", "--", "sh", "-c",
                            'echo "$PMI_RANK $(hostname)"')
        self.assertEqual(sorted(lines), [f"{rank} {node}" for rank, (node, _) in enumerate(places)])
        self.assertEqual([node for node, _ in places][:4], ["node0", "node0", "node1", "node1"])  # not in blocks

    def test_emitted_scripts_start_each_rank_on_its_gpu(self):
        """torchrun's documented flags and static numbering, for the order of each trainer."""
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / "torchrun").write_text(f"#!{sys.executable}\n{TORCHRUN}")
        (self.folder / "bin" / "torchrun").chmod(0o755)
        places = self.emitted("megatron")
        lines = self.output("testbed", "2", "--", "sh", self.folder / "megatron", "pretrain.py",
                            PATH=f"{self.folder / 'bin'}:{os.environ['PATH']}")
        got = {}
        for line in lines:
            node, gpu, rank, arguments = json.loads(line)
            self.assertEqual(arguments, ["--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2",
                                         "--use-tp-pp-dp-mapping"])
            d, p, t = rank // 4, rank // 2 % 2, rank % 2  # Megatron-LM's tp-cp-ep-pp-dp
            got[(p * 2 + d) * 2 + t] = (node, gpu)
        self.assertEqual([got[rank] for rank in range(8)], places)

    def test_links_have_the_rate_asked_for(self):
        program = self.folder / "link.py"
        program.write_text(LINK)
        done = subprocess.run([SCRIPTS / "testbed", "2", "--rate", "50mbit", "--", sys.executable, program],
                              capture_output=True, text=True, timeout=RUN_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(float(done.stdout), 60)
        self.assertGreater(float(done.stdout), 25)

    def test_a_refusal_keeps_its_exit_code(self):
        done = self.finish(self.start([*self.WORDS, "--"], pp=3))
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"\Atrivet: error: --pp 3 [^\n]*\n\Z")

    def test_a_killed_testbed_leaves_nothing(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            process = self.start([*self.WORDS, "--"], train_iters=10**7)
            self.wait_for_steps()
            process.send_signal(number)
            process.communicate(timeout=RUN_SECONDS)
            deadline = time.monotonic() + 5
            while processes_with(str(self.data)) and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(processes_with(str(self.data)), [])

    def test_usage(self):
        for words in ([], ["0", "--", "true"], ["2", "--"], ["2", "--order", "up", "--", "true"]):
            done = subprocess.run([SCRIPTS / "testbed", *words], capture_output=True, text=True, timeout=RUN_SECONDS)
            self.assertEqual(done.returncode, 2)
            self.assertIn("Usage: scripts/testbed", done.stderr)


class Slurm(Nodes):
    WORDS = ["slurm-testbed", "2", "--", "srun", "--mpi=pmi2", "-N2", "-n4"]

    @classmethod
    def setUpClass(cls):
        reason = reason_to_skip("slurm-testbed")
        if reason:
            raise unittest.SkipTest(reason)
        super().setUpClass()

    def test_losses_and_a_clean_end(self):
        for _ in range(REPEATS):
            self.same_losses(self.WORDS)
        self.same_losses([*self.WORDS, "--distribution=cyclic"])

    def test_block_and_cyclic_distribution_give_the_same_mesh(self):
        words = ["slurm-testbed", "2", "--per-node", "4", "--", "srun", "--mpi=pmi2", "-N2", "-n8"]
        block = self.layout(words)
        self.assertEqual(self.layout([*words, "--distribution=cyclic"]), block)
        self.assertEqual(sorted(Counter(block.values()).values()), [4, 4])

    def test_switches_decide_who_shares_what(self):
        """SLURM_TOPOLOGY_ADDR: replicas send more than stages, so a stage's nodes share a switch, whatever their names."""
        words = ["slurm-testbed", "4", "--switches", "0,3/1,2", "--", "srun", "-N4"]
        lines = self.output(*words, "-n4", "sh", "-c", "echo $SLURM_TOPOLOGY_ADDR $SLURM_TOPOLOGY_ADDR_PATTERN")
        self.assertEqual(sorted(lines), [f"root.leaf{leaf}.node{n} switch.switch.node"
                                         for leaf, n in ((0, 0), (0, 3), (1, 1), (1, 2))])
        nodes = self.layout([*words, "--mpi=pmi2", "-n8", "--distribution=cyclic"])
        stages = {frozenset(node for (p, _, _), node in nodes.items() if p == stage) for stage in range(2)}
        self.assertEqual(stages, {frozenset({"node0", "node3"}), frozenset({"node1", "node2"})})

    def test_emitted_host_file_under_srun(self):
        places = self.emitted("slurm-hostfile")
        lines = self.output("slurm-testbed", "2", "--per-node", "4", "--", "srun", "-N2", "-n8", "--distribution=arbitrary",
                            "sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME",
                            SLURM_HOSTFILE=str(self.folder / "slurm-hostfile"))
        self.assertEqual(sorted(lines), [f"{rank} {node}" for rank, (node, _) in enumerate(places)])

    def test_the_example(self):
        (self.folder / "corpus.txt").write_text("round and round it goes, " * 500)
        script = SCRIPTS.parent / "examples" / "launch" / "train.sbatch"
        done = subprocess.run([SCRIPTS / "slurm-testbed", "2", "--per-node", "8", "--", "sbatch", "--wait", script,
                               "corpus.txt", "--train-iters", "1", "--global-batch-size", "8", "--threads", "1"],
                              capture_output=True, text=True, timeout=60, cwd=self.folder,
                              env=dict(os.environ, TRIVET=trivet.BINARY))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"status":"ok"', (self.folder / "trivet-1.jsonl").read_text())

    def test_the_example_goes_back_into_the_queue(self):
        """Told that its time is nearly up, it saves and is queued again; what starts then goes on from there."""
        (self.folder / "corpus.txt").write_text("round and round it goes, " * 500)
        for name in self.folder.glob("trivet-1*"):
            shutil.rmtree(name) if name.is_dir() else name.unlink()
        script = SCRIPTS.parent / "examples" / "launch" / "train.sbatch"
        (self.folder / "queue").write_text(QUEUE.format(script=script))
        done = subprocess.run([SCRIPTS / "slurm-testbed", "2", "--per-node", "8", "--", "bash", "queue"],
                              capture_output=True, text=True, timeout=100, cwd=self.folder,
                              env=dict(os.environ, TRIVET=trivet.BINARY))
        said = done.stdout + done.stderr + (self.folder / "slurm-1.out").read_text()
        self.assertIn("JobState=COMPLETED", done.stdout, said)
        self.assertIn("Restarts=1", done.stdout)
        records = [json.loads(line) for line in (self.folder / "trivet-1.jsonl").read_text().splitlines()]
        self.assertEqual([r["step"] for r in records if r["type"] == "step"], list(range(1, 31)))
        self.assertEqual([r["status"] for r in records if r["type"] == "end"], ["stopped", "ok"], said)

    def test_refusals_keep_their_exit_code(self):
        without_pmi = ["slurm-testbed", "2", "--", "srun", "--mpi=none", "-n4"]
        for start, pp, words in ((self.WORDS, 3, "--pp 3"), (without_pmi, 2, "srun --mpi=pmi2")):
            done = self.finish(self.start(start, pp=pp))
            said = [line for line in done.stderr.splitlines() if line.startswith("trivet:")]
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(len(said), 1, done.stderr)
            self.assertIn(words, said[0])

    def test_b54_a_killed_rank_ends_the_job_and_is_named(self):
        one_node = ["slurm-testbed", "1", "--per-node", "4", "--", "srun", "--mpi=pmi2", "-n4"]
        for start in (one_node, self.WORDS):
            process = self.start(start, train_iters=10**7, timeout=3)
            self.wait_for_steps()
            ranks = ranks_of(self.data)
            self.assertEqual(len(ranks), 4)
            os.kill(ranks[3], signal.SIGKILL)
            done = self.finish(process, seconds=15)
            self.assertNotEqual(done.returncode, 0)
            said = [line for line in done.stderr.splitlines() if line.startswith("trivet: error:")]
            self.assertGreater(len(said), 0, done.stderr)
            self.assertRegex(said[0], r"(world|data|tensor|pipe \w+) axis, rank \d: .*(from|to) rank \d")


if __name__ == "__main__":
    reason = reason_to_skip("testbed")
    if reason:
        print(reason)
        sys.exit(77)
    unittest.main(verbosity=2)
