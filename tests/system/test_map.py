"""trivet map through the command line."""
import json
import re
import resource
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import trivet
from trivet import BINARY, MPIEXEC

SVG = "{http://www.w3.org/2000/svg}"
PAIR = "node:2 gpu:4 link:nvswitch"


def run(*words, start=(), timeout=60):
    return subprocess.run([*start, BINARY, "map", *map(str, words)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)


class Maps(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="trivet-map-"))

    def done(self, *words, **options):
        result = run(*words, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def json(self, *words, **options):
        result = self.done(*words, "--json", **options)
        self.assertEqual(result.stderr, "")
        return json.loads(result.stdout)

    def refuse(self, code, words, *flags):
        trivet.assert_refused(self, run(*flags), code, words)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def emit(self, kind, *words):
        """The file of this kind: (lines that are not comments, comments)."""
        path = self.folder / f"{kind}.txt"
        result = self.done(*words, "--emit", f"{kind}:{path}")
        lines = path.read_text().splitlines()
        notes = [line for line in lines if line.startswith("#")] + result.stderr.splitlines()
        self.assertTrue(any("Use" in line for line in notes), notes)
        return [line for line in lines if not line.startswith("#")], "\n".join(notes)

    def in_mesh_order(self, out):
        return [(r["node"], r["device"]) for r in sorted(out["placement"], key=lambda r: r["coordinate"])]

    # ---- the layout ----

    def test_cyclic_arrival_keeps_tensor_groups_inside_nodes(self):
        out = self.json("--topology", PAIR, "--pp", 2, "--tp", 4, "--arrival", "cyclic", "--traffic", "1e9,1e7,0")
        self.assertEqual(set(out), {"placement", "cost", "split_tensor_groups", "unused", "warnings"})
        self.assertEqual(set(out["cost"]), {"chosen", "identity", "worst"})
        for cost in out["cost"].values():
            self.assertEqual(set(cost), {"total", "tensor", "pipeline", "data"})
            self.assertAlmostEqual(cost["total"], cost["tensor"] + cost["pipeline"] + cost["data"], delta=1e-12)
        rows = out["placement"]
        self.assertEqual([r["rank"] for r in rows], list(range(8)))
        self.assertEqual([r["node"] for r in rows], [f"node{r % 2}" for r in range(8)])
        self.assertEqual([r["device"] for r in rows], [r // 2 for r in range(8)])
        self.assertEqual(set(rows[0]), {"rank", "node", "device", "pci", "numa", "coordinate"})
        groups = [sorted(r["rank"] for r in rows if r["coordinate"][0] == p) for p in range(2)]
        self.assertEqual(groups, [[0, 2, 4, 6], [1, 3, 5, 7]])
        self.assertEqual(sorted(r["coordinate"] for r in rows), [[p, 0, t] for p in range(2) for t in range(4)])
        self.assertEqual((out["split_tensor_groups"], out["unused"]), (0, []))
        self.assertLess(out["cost"]["chosen"]["total"], out["cost"]["identity"]["total"])
        text = self.done("--topology", PAIR, "--pp", 2, "--tp", 4, "--arrival", "cyclic",
                         "--traffic", "1e9,1e7,0").stdout
        self.assertEqual(re.search(r"chosen .* (\d+)\n", text)[1], "0")
        self.assertEqual(re.search(r"identity .* (\d+)\n", text)[1], "2")

    def test_costs_of_a_stage_per_node(self):
        # tp 4 on 450 GB/s, the pipe's four pairs on one NIC of 50 GB/s.
        out = self.json("--topology", PAIR, "--pp", 2, "--tp", 4, "--traffic", "9e9,1e9,0")
        chosen = out["cost"]["chosen"]
        self.assertAlmostEqual(chosen["tensor"], 9 / 450, delta=1e-9)
        self.assertAlmostEqual(chosen["pipeline"], 4 / 50, delta=1e-9)
        self.assertEqual(chosen["data"], 0)
        half = self.json("--topology", PAIR, "--pp", 2, "--tp", 4, "--traffic", "9e9,1e9,0", "--exposed", "1,0.5,1")
        self.assertAlmostEqual(half["cost"]["chosen"]["total"], 9 / 450 + 2 / 50, delta=1e-9)

    def test_replicas_fill_the_devices_and_the_rest_is_unused(self):
        out = self.json("--topology", "node:1 gpu:8 link:nvswitch,node:1 gpu:7 link:nvswitch", "--tp", 4,
                        "--traffic", "1e10,0,1e8")
        self.assertEqual(len(out["placement"]), 12)
        self.assertEqual(len(out["unused"]), 3)
        used = {(r["node"], r["device"]) for r in out["placement"]}
        unused = {(r["node"], r["device"]) for r in out["unused"]}
        self.assertEqual((len(used), len(unused), used & unused), (12, 3, set()))
        self.assertEqual(out["split_tensor_groups"], 0)

    def test_the_heavier_of_replicas_and_stages_shares_the_node(self):
        """Two tensor pairs per node. A stage with two neighbours loads the NIC with 4 + 1 pairs and rings or with 2 +
        2, so replicas stay inside above w_dp = 2 w_pp; of two stages and replicas, which have one neighbour each, above
        w_dp = w_pp."""
        for nodes, pp, dp, limit in ((12, 6, 4, 2e9), (2, 2, 2, 1e9)):
            for factor, axis in ((1.01, 0), (0.99, 1), (8, 0), (0.1, 1)):
                for arrival in ("block", "cyclic"):
                    out = self.json("--topology", f"node:{nodes} gpu:4 link:nvswitch", "--pp", pp, "--dp", dp, "--tp",
                                    2, "--arrival", arrival, "--traffic", f"1e12,1e9,{factor * limit}")
                    for n in range(nodes):  # a stage of two replicas, or two stages of a replica
                        inside = {r["coordinate"][axis] for r in out["placement"] if r["node"] == f"node{n}"}
                        self.assertEqual(len(inside), 1, (nodes, factor, arrival))
                    self.assertEqual(out["split_tensor_groups"], 0)

    def test_two_nodes_of_six_and_tensor_groups_of_four(self):
        """Row 10 of the mapper's cases. Where a GPU's slot is half as fast as the NIC, a second split group costs the
        tensor axis nothing and saves the data axis a crossing; docs/mapping.md says so."""
        words = ["--tp", 4, "--dp", 3]
        for link, data, split, cost in (("nvswitch", 1e9, 1, 1e10 / 50e9 + 4e9 / 50e9), ("none", 0, 1, 1e10 / 25e9),
                                        ("none", 1e9, 2, 1e10 / 25e9 + 3e9 / 50e9)):
            out = self.json("--topology", f"node:2 numa:2 gpu:6 link:{link}", *words, "--traffic", f"1e10,0,{data}")
            self.assertEqual(out["split_tensor_groups"], split)
            self.assertAlmostEqual(out["cost"]["chosen"]["total"], cost, delta=1e-9)

    def test_traffic_of_a_model(self):
        # gpt2: L 12, C 768; S 1024, m 4, bf16, pp 2, dp 2, tp 2.
        words = ["--topology", "node:2 gpu:4 link:nvswitch", "--pp", 2, "--tp", 2, "--dp", 2, "--preset", "gpt2",
                 "--global-batch-size", 8]
        message = 2 * 1024 * 768

        def traffic(*more):
            text = self.done(*words, *more).stdout
            return [float(x) for x in re.search(r"tensor (\S+), pipeline (\S+), data (\S+) GB", text).groups()]

        tensor, pipe, data = traffic()
        self.assertAlmostEqual(tensor, 2 * 1 / 2 * message * 4 * 6 * 4 / 1e9, delta=1e-4)
        self.assertAlmostEqual(pipe, 4 * message / 1e9, delta=1e-5)
        half = 25152 * 768 + 6 * (12 * 768 * 768 + 7 * 768) / 2  # tokens to a multiple of 64, matrices, their biases are cut
        whole = 1024 * 768 + 6 * 6 * 768  # positions, norms and the biases of row-cut matrices are not
        self.assertAlmostEqual(data, 1 / 2 * 4 * (half + whole) / 1e9, delta=6e-6)
        self.assertAlmostEqual(traffic("--recompute", "full")[0], 1.5 * tensor, delta=1e-4)
        self.assertAlmostEqual(traffic("--precision", "fp32")[1], 2 * pipe, delta=1e-5)
        self.assertAlmostEqual(traffic("--sequence-parallel")[1], pipe / 2, delta=1e-5)
        self.assertAlmostEqual(traffic("--vpp", 3)[1], 3 * pipe, delta=1e-5)
        cpu = self.done(*[w if w != words[1] else "node:2 cpu:4" for w in words]).stdout
        self.assertIn(f"pipeline {2 * pipe:.4g},", cpu)

    def test_arrivals_from_a_file(self):
        lines = [(f"node{n}", d) for d in (3, 1, 0, 2) for n in (1, 0)]
        path = self.file("arrivals", "# node device\n\n" + "".join(f"{n} {d}  # here\n" for n, d in lines))
        out = self.json("--topology", PAIR, "--pp", 2, "--tp", 4, "--traffic", "1e9,1e7,0", "--arrival", path)
        self.assertEqual([(r["node"], r["device"]) for r in out["placement"]], lines)
        block = self.json("--topology", PAIR, "--pp", 2, "--tp", 4, "--traffic", "1e9,1e7,0")
        self.assertEqual(self.in_mesh_order(out), self.in_mesh_order(block))  # arrival decides nothing
        self.assertEqual([(r["node"], r["device"]) for r in block["placement"]],
                         [(f"node{n}", d) for n in range(2) for d in range(4)])

    # ---- text, files ----

    def test_text_fits_80_columns(self):
        for topology, words in ((PAIR, ["--pp", 2, "--tp", 4]), ("node:1 gpu:1", []),
                                ("node:3 numa:2 gpu:16 link:mesh", ["--tp", 8, "--pp", 2]),
                                ("node:40 gpu:7 nic:2", ["--pp", 5, "--tp", 2])):
            result = self.done("--topology", topology, *words, "--traffic", "1e9,1e8,1e7")
            lines = result.stdout.splitlines()
            self.assertLessEqual(max(map(len, lines)), 80, result.stdout)
            self.assertEqual([line for line in lines if line != line.rstrip()], [])
            self.assertNotIn("\033", result.stdout)
            for word in ("machines:", "mesh:", "chosen", "identity", "worst", "arrival", "nodes:"):
                self.assertIn(word, result.stdout)
        wide = self.done("--topology", "node:1 gpu:16", "--traffic", "1,1,1", "--width", 200).stdout
        self.assertIn(" ".join(f"0.{d:d}.0".rjust(6) for d in range(16)), wide)

    def test_many_nodes_are_abbreviated(self):
        text = self.done("--topology", "node:512 gpu:8 link:nvswitch", "--pp", 8, "--tp", 8,
                         "--traffic", "1e9,1e8,1e7").stdout
        self.assertIn("... 4080 more ranks", text)
        self.assertIn("... 492 more nodes ...", text)
        self.assertLess(text.count("\n"), 80)

    def test_svg(self):
        path = self.folder / "new" / "a.svg"
        out = self.json("--topology", "node:5 gpu:3", "--pp", 2, "--tp", 2, "--traffic", "1e9,1e8,1e7", "--svg", path)
        root = xml.etree.ElementTree.parse(path).getroot()
        rects = list(root.iter(f"{SVG}rect"))
        devices = [r for r in rects if r.get("class") == "device"]
        self.assertEqual(len(devices), len(out["placement"]))
        self.assertEqual(len({r.get("fill") for r in devices}), 2)  # a colour per stage
        self.assertEqual(len([r for r in rects if r.get("class") == "unused"]), len(out["unused"]))
        uplinks = [g for g in root.iter(f"{SVG}g") if g.get("class") == "uplink"]
        self.assertEqual(len(uplinks), 5)
        for g in uplinks:
            self.assertRegex(g.find(f"{SVG}title").text, r"^node\d, pipeline \S+ GB, data \S+ GB, tensor \S+ GB, ")

    def test_svg_says_what_uplinks_carry(self):
        path = self.folder / "b.svg"
        self.done("--topology", PAIR, "--pp", 2, "--tp", 4, "--traffic", "1e12,1e9,0", "--svg", path)
        titles = [t.text for t in xml.etree.ElementTree.parse(path).getroot().iter(f"{SVG}title")]
        self.assertEqual(titles, [f"node{n}, pipeline 4 GB, data 0 GB, tensor 0 GB, 80 ms at 50 GB/s"
                                  for n in range(2)])

    def test_network(self):
        network = self.file("two.conf", "".join(f"SwitchName=leaf{i} Nodes=node[{2 * i}-{2 * i + 1}]\n"
                                                for i in range(4)) +
                            "".join(f"SwitchName=pod{i} Switches=leaf[{2 * i}-{2 * i + 1}]\n" for i in range(2)) +
                            "SwitchName=root Switches=pod[0-1]\n")
        path = self.folder / "c.svg"
        words = ["--topology", "node:8 gpu:4 link:nvswitch", "--network", network, "--pp", 2, "--dp", 4, "--tp", 4,
                 "--traffic", "1e12,1e6,1e9"]
        text = self.done(*words, "--svg", path).stdout
        for line in ("level 0: 1 switch\n", "level 1: 2 switches", "level 2: 4 switches"):
            self.assertIn(line, text)
        titles = [t.text for t in xml.etree.ElementTree.parse(path).getroot().iter(f"{SVG}title")]
        self.assertEqual(Counter(t.split(",")[0] for t in titles),
                         Counter([f"node{n}" for n in range(8)] + [f"leaf{n}" for n in range(4)] + ["pod0", "pod1"]))
        pods = [t for t in titles if t.startswith("pod")]
        self.assertEqual([t.split(", ")[2] for t in pods], ["data 0 GB"] * 2)  # a stage per pod
        self.assertEqual([t.split(", ")[1] for t in pods], ["pipeline 0.016 GB"] * 2)
        self.refuse(3, "missing.conf", *words[:2], "--network", self.folder / "missing.conf", "--traffic", "1,1,1")

    def test_closed_and_full_outputs(self):
        command = f"'{BINARY}' map --topology 'node:2000 gpu:8' --tp 8 --traffic 1,1,1 --json"
        result = subprocess.run(f"{command} | head -c 14", shell=True, capture_output=True, text=True, timeout=60)
        self.assertEqual((result.stdout, result.stderr), ('{"placement":[', ""))
        result = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot be written", result.stderr)

    def test_a_launcher_prints_once(self):
        out = self.json("--topology", PAIR, "--traffic", "1,1,1", start=[MPIEXEC, "-n", "3"])
        self.assertEqual(len(out["placement"]), 8)

    def test_help(self):
        result = self.done("--help")
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)
        for flag in ("--topology", "--network", "--traffic", "--arrival", "--emit", "--preset", "--seq-length"):
            self.assertIn(f"  {flag}", result.stdout)

    # ---- other launchers ----

    LAYOUT = ["--topology", "node:3 numa:2 gpu:4 link:nvswitch", "--pp", 3, "--tp", 2, "--dp", 2, "--traffic",
              "1e12,1e7,1e9"]

    def test_host_files_hold_the_ranks_in_mesh_order(self):
        places = self.in_mesh_order(self.json(*self.LAYOUT))
        hosts = [node for node, _ in places]
        lines, notes = self.emit("mpich-hostfile", *self.LAYOUT)
        self.assertIn("mpiexec -f ", notes)
        found, gpus = [], []
        for line in lines:
            match = re.fullmatch(r"(\S+):(\d+) # ranks (\d+)-(\d+), GPUs ([\d,]+)", line)
            found += [match[1]] * int(match[2])
            gpus += [int(g) for g in match[5].split(",")]
            self.assertEqual(int(match[4]) + 1, len(found))
        self.assertEqual(list(zip(found, gpus)), places)
        lines, notes = self.emit("slurm-hostfile", *self.LAYOUT)
        self.assertIn("-m arbitrary", notes)
        self.assertEqual(lines, hosts)
        lines, notes = self.emit("rankfile", *self.LAYOUT)
        self.assertIn("--map-by rankfile:file=", notes)
        matches = [re.fullmatch(r"rank (\d+)=(\S+) slot=(\d)(?::\*)? # GPU (\d)", line) for line in lines]
        self.assertEqual([int(m[1]) for m in matches], list(range(12)))
        self.assertEqual([(m[2], int(m[4])) for m in matches], places)

    def script(self, kind, *words):
        """(node, GPUs) by node rank of a script, and the script; the shell accepts it."""
        lines, notes = self.emit(kind, *words)
        subprocess.run(["sh", "-n", self.folder / f"{kind}.txt"], check=True)
        rows = [re.match(r"(\S+)\|\1\.\*\) NODE_RANK=(\d+) NPROC=(\d+) GPUS=(\S+) ;;", line) for line in lines]
        rows = [m for m in rows if m]
        self.assertEqual([int(m[2]) for m in rows], list(range(len(rows))))
        for m in rows:
            self.assertEqual(int(m[3]), len(m[4].split(",")))
        return [(m[1], int(g)) for m in rows for g in m[4].split(",")], "\n".join(lines) + notes

    def test_scripts_start_the_ranks_in_mesh_order(self):
        out = self.json(*self.LAYOUT)
        places, text = self.script("torchrun", *self.LAYOUT)
        self.assertEqual(places, self.in_mesh_order(out))
        self.assertIn("--nnodes=3", text)
        self.assertIn(f"--master-addr={places[0][0]} ", text)
        places, text = self.script("megatron", *self.LAYOUT)
        self.assertEqual(places, self.in_mesh_order(out))
        self.assertIn("--tensor-model-parallel-size 2 --pipeline-model-parallel-size 3", text)
        self.assertNotIn("--use-tp-pp-dp-mapping", text)
        lines, notes = self.emit("deepspeed", *self.LAYOUT)
        self.assertEqual(sorted(lines), [f"node{n} slots=4" for n in range(3)])
        include = re.search(r"--include (\S+)", notes)[1]
        found = [(host.split(":")[0], int(g)) for host in include.split("@") for g in host.split(":")[1].split(",")]
        self.assertEqual(Counter(found), Counter(self.in_mesh_order(out)))
        self.assertEqual([h.split(":")[0] for h in include.split("@")], [line.split()[0] for line in lines])

    def test_replicas_on_nodes_of_their_own(self):
        # The pipe outweighs the replicas: each node is a replica, which only the other order of axes says in blocks.
        words = ["--topology", "node:2 gpu:4 link:nvswitch", "--pp", 2, "--tp", 2, "--dp", 2, "--traffic",
                 "1e12,1e10,1"]
        places, text = self.script("megatron", *words)
        self.assertIn("--use-tp-pp-dp-mapping", text)
        out = self.json(*words)
        order = sorted(out["placement"], key=lambda r: (r["coordinate"][1], r["coordinate"][0], r["coordinate"][2]))
        self.assertEqual(places, [(r["node"], r["device"]) for r in order])
        for kind in ("torchrun", "deepspeed"):
            path = self.folder / "none"
            self.refuse(2, [kind, "not in a row", "slurm-hostfile"], *words, "--emit", f"{kind}:{path}")
            self.assertFalse(path.exists())
        lines, _ = self.emit("mpich-hostfile", *words)
        self.assertEqual(len(lines), 4)  # each node twice

    def test_several_files_and_standard_output(self):
        a, b = self.folder / "a" / "hosts", self.folder / "b"
        result = self.done(*self.LAYOUT, "--emit", f"mpich-hostfile:{a},rankfile:{b},torchrun")
        self.assertTrue(result.stdout.startswith("#!/bin/sh\n"))
        self.assertIn(f"mpiexec -f {a} -n 12", a.read_text())
        self.assertIn(f"rankfile:file={b}", b.read_text())

    # ---- refused ----

    def test_refused(self):
        mesh = ["--topology", PAIR, "--pp", 2, "--tp", 4]
        good = [*mesh, "--traffic", "1,1,1"]
        self.refuse(2, "--topology", "--pp", 2, "--traffic", "1,1,1")
        self.refuse(2, ["--traffic", "--preset"], *mesh)
        self.refuse(2, ["--traffic", "--preset"], *good, "--preset", "gpt2")
        self.refuse(2, ["16", "8"], "--topology", PAIR, "--pp", 4, "--tp", 4, "--traffic", "1,1,1")
        self.refuse(2, ["16", "8"], *good, "--dp", 2)
        self.refuse(2, "--pp 1048576, 4096 chunk", "--topology", "node:131072 gpu:8", "--pp", 2**20, "--vpp", 4096,
                    "--preset", "gpt2")
        self.refuse(2, "8", *good, "--dp", 2147483647)
        self.refuse(2, "--traffic 1,1", *mesh, "--traffic", "1,1")
        self.refuse(2, ["--traffic", "-1"], *mesh, "--traffic", "1,-1,1")
        self.refuse(2, "--traffic", *mesh, "--traffic", "1,nan,1")
        self.refuse(2, ["--exposed", "1.5"], *good, "--exposed", "1,1.5,1")
        self.refuse(2, "--precision fp8", *mesh, "--preset", "gpt2", "--precision", "fp8")
        self.refuse(2, "--precision", *good, "--precision", "fp32")
        self.refuse(2, "--preset gpt9", *mesh, "--preset", "gpt9")
        self.refuse(2, "25", *mesh, "--preset", "gpt2-xl")  # heads
        self.refuse(2, "--recompute some", *mesh, "--preset", "gpt2", "--recompute", "some")
        self.refuse(2, "--schedule none", *good, "--schedule", "none")
        self.refuse(2, ["--vpp 3", "zb-v"], *good, "--schedule", "zb-v", "--vpp", 3)
        self.refuse(2, "--emit hosts", *good, "--emit", "hosts")
        self.refuse(2, "--emit", *good, "--emit", "torchrun,rankfile")
        self.refuse(2, "--emit", *good, "--emit", "torchrun:")
        self.refuse(2, ["--emit", "--json"], *good, "--emit", "torchrun", "--json")
        self.refuse(2, "/proc/nothing", *good, "--svg", "/proc/nothing/a.svg")
        self.refuse(2, "--lr", *good, "--lr", 1)
        self.refuse(2, "node", "--topology", "node:0 gpu:4", "--traffic", "1,1,1")
        self.refuse(3, "missing.xml", "--topology", self.folder / "missing.xml", "--traffic", "1,1,1")

    def test_arrivals_that_are_refused(self):
        def refuse(code, words, text):
            path = self.file("bad", text)
            self.refuse(code, words, "--topology", PAIR, "--tp", 2, "--pp", 1, "--dp", 1, "--traffic", "1,1,1",
                        "--arrival", path)

        refuse(3, ["line 2", "node7"], "node0 0\nnode7 0\n")
        refuse(3, ["line 3", "node1", "4"], "node0 0\n# x\nnode1 4\n")
        refuse(3, "line 1", "node0\n")
        refuse(3, "line 2", "node0 0\nnode0 1 2\n")
        refuse(3, "line 2", "node0 0\nnode0 -1\n")
        refuse(3, ["line 1", "4294967296"], "node0 4294967296\nnode0 1\n")
        refuse(3, "line 1", "x" * 5000)
        refuse(3, "line 1", "\0\1\2\n")
        refuse(3, ["line 9", "8 devices"], "".join(f"node{n} {d}\n" for n in range(2) for d in range(4)) + "node0 0\n")
        refuse(2, ["ranks 0 and 1", "device 3", "node0"], "node0 3\nnode0 3\n")  # B49: one device, two ranks
        refuse(2, ["2", "1"], "node0 0\n")
        refuse(2, "2", "")
        self.refuse(3, "no-such-file", "--topology", PAIR, "--traffic", "1,1,1", "--arrival",
                    self.folder / "no-such-file")

    # ---- size ----

    def test_131072_devices_in_a_tree_of_six_levels(self):
        # Devices, nodes of 8, leaves of 8 nodes, pods of 8 leaves, halls of 16 pods, a root.
        levels = [("leaf", "Nodes=node", 2048, 8), ("pod", "Switches=leaf", 256, 8), ("hall", "Switches=pod", 16, 16),
                  ("root", "Switches=hall", 1, 16)]
        network = self.file("six.conf", "".join(f"SwitchName={name}{i} {below}[{i * n}-{i * n + n - 1}]\n"
                                                for name, below, count, n in levels for i in range(count)))
        start = time.monotonic()
        result = self.done("--topology", "node:16384 gpu:8 link:nvswitch", "--network", network, "--pp", 16, "--tp", 8,
                           "--traffic", "8e11,1e10,1e9", "--json", timeout=120)
        seconds = time.monotonic() - start
        megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"131072 devices: {seconds:.2f} s, largest process {megabytes:.0f} MB")
        out = json.loads(result.stdout)
        self.assertEqual(len({tuple(r["coordinate"]) for r in out["placement"]}), 131072)
        self.assertEqual(len({(r["node"], r["device"]) for r in out["placement"]}), 131072)
        self.assertEqual([r["rank"] for r in out["placement"]], list(range(131072)))
        self.assertEqual(out["split_tensor_groups"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
