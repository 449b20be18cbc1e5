"""trivet schedule and trivet bench pipeline through the command line."""
import json
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

import trivet
from trivet import BINARY, MPIEXEC

NAMES = ["naive", "gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe-v"]


def run(*words, start=(), timeout=60):
    return subprocess.run([*start, BINARY, *map(str, words)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)


def schedule(name, pp, m, *words, **options):
    return run("schedule", "--schedule", name, "--pp", pp, "--micro-batches", m, *words, **options)


class Schedules(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="trivet-schedule-"))

    def json(self, name, pp, m, *words, **options):
        result = schedule(name, pp, m, "--json", *words, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count("\n"), 1)
        self.assertEqual(result.stderr, "")
        return json.loads(result.stdout)

    def refuse(self, code, words, *flags, start=()):
        trivet.assert_refused(self, run("schedule", *flags, start=start), code, words)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_numbers_of_the_page(self):
        rows = [  # name, P, v, m, makespan, bubble, slots
            ("naive", 4, 1, 4, 48, .75, [1, 1, 1, 1]),
            ("gpipe", 4, 1, 8, 33, .2727, [8, 8, 8, 8]),
            ("1f1b", 4, 1, 8, 33, .2727, [4, 3, 2, 1]),
            ("1f1b", 8, 1, 20, 81, .2593, [8, 7, 6, 5, 4, 3, 2, 1]),
            ("interleaved", 4, 2, 8, 57, .1579, [11, 9, 7, 5]),
            ("interleaved", 4, 3, 16, 153, .0588, [15, 13, 11, 9]),
            ("zb-h1", 4, 1, 16, 51, .0588, [4, 4, 4, 4]),
            ("zb-h2", 4, 1, 16, 51, .0588, [7, 7, 7, 7]),
            ("zb-v", 4, 2, 16, 99, .0303, [8, 8, 8, 8]),
            ("v-half", 4, 2, 16, 108, .1111, None),
            ("v-min", 4, 2, 16, 107, .1028, None),
            ("dualpipe-v", 4, 2, 16, 99, .0303, [9, 9, 9, 9]),
        ]
        for name, pp, vpp, m, makespan, bubble, slots in rows:
            with self.subTest(name=name, pp=pp, vpp=vpp, m=m):
                out = self.json(name, pp, m, "--vpp", vpp)
                self.assertEqual((out["schedule"], out["pp"], out["vpp"], out["micro_batches"]), (name, pp, vpp, m))
                self.assertEqual(out["makespan"], makespan)
                self.assertAlmostEqual(out["bubble_fraction"], bubble, delta=5e-5)
                self.assertEqual(len(out["own_window_bubble"]), pp)
                if slots is not None:
                    self.assertEqual(out["peak_slots"], slots)
                for s in range(pp):
                    self.assertAlmostEqual(makespan, sum(out[k][s] for k in ("busy", "warmup", "wait", "drain")))

    def test_zb_h1_inputs_and_own_windows(self):
        out = self.json("zb-h1", 4, 8)
        self.assertEqual(out["peak_slots_input"], [4, 3, 2, 1])
        self.assertEqual(out["wait"], [3, 2, 1, 0])
        self.assertAlmostEqual(out["own_window_bubble"][0], 3 / 27)

    def test_costs_and_sends(self):
        self.assertEqual(self.json("1f1b", 4, 8, "--costs", "2,3,4")["makespan"], 9 * 11)
        out = self.json("1f1b", 8, 32, "--send-cost", 0.25)
        self.assertEqual((out["makespan"], out["send_cost"]), (117 + 17, 0.25))
        out = self.json("dualpipe-v", 4, 8, "--overlap-pairs")
        self.assertEqual(out["makespan"], 54)

    def test_chunks_alone_mean_interleaved(self):
        out = json.loads(run("schedule", "--pp", 4, "--vpp", 2, "--micro-batches", 8, "--json").stdout)
        self.assertEqual((out["schedule"], out["makespan"]), ("interleaved", 57))

    def test_text_fits_80_columns(self):
        for name in NAMES:
            for pp, m in ((1, 1), (4, 8), (12, 100)):
                result = schedule(name, pp, m)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80, result.stdout)
                self.assertNotIn("\033", result.stdout)
        picture = schedule("gpipe", 2, 2).stdout.splitlines()[-4:]
        self.assertEqual(picture[0], "0 F0-F1-.........B0----B1----")

    def test_refused(self):
        size = ["--pp", "4", "--micro-batches", "8"]
        self.refuse(2, ["zb-h3", "zb-h2", "dualpipe-v"], *size, "--schedule", "zb-h3")
        self.refuse(2, "--pp 0", "--pp", 0, "--micro-batches", 8)
        self.refuse(2, "--micro-batches -1", "--pp", 4, "--micro-batches", -1)
        self.refuse(2, "--pp", "--micro-batches", 8)
        self.refuse(2, "--micro-batches", "--pp", 4)
        self.refuse(2, ["--vpp 3", "zb-v", "2"], *size, "--schedule", "zb-v", "--vpp", 3)
        self.refuse(2, "--costs 1,1", *size, "--costs", "1,1")
        self.refuse(2, "--costs", *size, "--costs", "1,-1,1")
        self.refuse(2, "--send-cost", *size, "--send-cost", "nan")
        self.refuse(2, ["gpipe", "8", "--slot-limit is 3"], *size, "--schedule", "gpipe", "--slot-limit", 3)
        self.refuse(2, "--no-such-flag", *size, "--no-such-flag")
        self.refuse(2, "--csv-form", *size, "--csv", "x", "--csv-form", "words")
        self.refuse(2, "--csv-form", *size, "--csv-form", "compute_comms")
        self.refuse(2, ["--svg same", "--csv"], *size, "--svg", "same", "--csv", "./same")
        self.refuse(2, ["--overlap-pairs", "zb-v", "dualpipe-v"], *size, "--schedule", "zb-v", "--overlap-pairs")
        self.refuse(2, "--local-ranks", *size, "--local-ranks", 4)
        self.refuse(2, "--timeout 3", *size, "--timeout", 3)
        self.refuse(2, "--log-level loud", *size, "--log-level", "loud")
        for flag in ("--svg", "--csv"):
            self.refuse(1, f"{flag} /dev/full", *size, flag, "/dev/full")
        self.refuse(2, "/proc/nothing", *size, "--svg", "/proc/nothing/a.svg")
        self.refuse(2, ["4 stages", "3 rank"], *size, "--run", 1, "--local-ranks", 3)
        self.refuse(2, ["4 stages", "2 rank"], *size, "--run", 1, start=[MPIEXEC, "-n", "2"])
        self.refuse(2, "--schedule", "--compare", *size, "--schedule", "1f1b")

    def test_files_that_are_refused(self):
        self.refuse(3, "missing.csv", "--schedule", self.folder / "missing.csv")
        self.refuse(3, ["row 2, cell 3", "1Q0"], "--schedule", self.file("q.csv", "0F0,0B0\n1F0,,1Q0\n"))
        self.refuse(3, "before its F", "--schedule", self.file("order.csv", "0B0,0F0\n"))
        self.refuse(3, "no action", "--schedule", self.file("empty.csv", ""))
        self.refuse(3, "row 1, cell 1", "--schedule", self.file("junk.csv", "\0\1\2"))
        self.refuse(2, ["1f1b.x", "FILE.csv"], "--schedule", "1f1b.x", "--pp", 2, "--micro-batches", 2)  # a name
        self.refuse(3, "./none", "--schedule", "./none")  # a file
        good = self.file("good.csv", "0F0,0B0\n1F0,1B0\n")
        self.refuse(2, ["--pp 3", "2"], "--schedule", good, "--pp", 3)
        self.refuse(2, ["--micro-batches 2", "1"], "--schedule", good, "--micro-batches", 2)
        self.refuse(3, "q.csv", "--schedule", self.folder / "q.csv", "--run", 1, "--local-ranks", 2)

    def test_csv_there_and_back(self):
        for name in NAMES:
            for form in ("compute_only", "compute_comms"):
                path = self.folder / "new" / f"{name}-{form}.csv"
                built = self.json(name, 4, 9, "--csv", path, "--csv-form", form, "--send-cost", 0.5)
                result = run("schedule", "--schedule", path, "--json", "--send-cost", 0.5)
                self.assertEqual(result.returncode, 0, result.stderr)
                read = json.loads(result.stdout)
                self.assertEqual(read.pop("schedule"), path.name)
                built.pop("schedule")
                self.assertEqual(read, built)

    def test_svg_and_trace(self):
        svg, trace = self.folder / "a.svg", self.folder / "a.json"
        out = self.json("zb-v", 4, 8, "--svg", svg, "--trace", trace)
        root = xml.etree.ElementTree.parse(svg).getroot()
        boxes = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("class") in ("F", "I", "W")]
        self.assertEqual(len(boxes), 4 * 2 * 8 * 3 + 3)  # and the legend
        events = json.loads(trace.read_text())["traceEvents"]
        work = [e for e in events if e["ph"] == "X" and e["cat"] == "compute"]
        self.assertEqual(len(work), 4 * 2 * 8 * 3)
        self.assertEqual(len([e for e in events if e["ph"] == "X"]), len(work) + sum(out["messages"]))
        self.assertEqual({e["args"]["name"] for e in events if e["name"] == "process_name"},
                         {f"stage {s}" for s in range(4)})
        self.assertEqual(max(e["ts"] + e["dur"] for e in work), out["makespan"] * 1000)

    def test_compare(self):
        result = run("schedule", "--compare", "--pp", 4, "--micro-batches", 16, "--json", "--slot-limit", 5)
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = json.loads(result.stdout)
        self.assertEqual({row["schedule"] for row in rows}, set(NAMES))
        self.assertEqual([r["vpp"] for r in rows if r["schedule"] == "interleaved"], [4, 3, 2])
        found = {(r["schedule"], r["vpp"]): r for r in rows}
        self.assertEqual(found["1f1b", 1]["makespan"], 57)
        self.assertEqual(found["zb-v", 2]["makespan"], 49.5)
        self.assertEqual(found["zb-v", 2]["slots"], 4)
        self.assertEqual(found["zb-h2", 1]["slots"], 5)  # its warm-up gives way to the limit
        self.assertEqual([r["schedule"] for r in rows if not r["fits"]], ["gpipe"])
        self.assertEqual(rows[-1]["schedule"], "gpipe")
        fitting = [r["makespan"] for r in rows if r["fits"]]
        self.assertEqual(fitting, sorted(fitting))
        text = run("schedule", "--compare", "--pp", 4, "--micro-batches", 16, "--slot-limit", 5).stdout
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertIn("does not fit", text)

    def test_closed_and_full_outputs(self):
        command = f"'{BINARY}' schedule --pp 64 --micro-batches 2000"
        result = subprocess.run(f"{command} | head -1", shell=True, capture_output=True, text=True, timeout=60)
        self.assertEqual((result.stdout, result.stderr), ("1f1b: pp 64, vpp 1, 2000 micro-batches\n", ""))
        result = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot be written", result.stderr)

    def test_a_launcher_without_run_prints_once(self):
        result = schedule("1f1b", 4, 8, "--json", start=[MPIEXEC, "-n", "3"])
        self.assertEqual((result.returncode, result.stdout.count("\n")), (0, 1))

    def test_run_with_threads_and_processes(self):
        for start, words in (((), ["--local-ranks", 2]), ([MPIEXEC, "-n", "2"], [])):
            out = self.json("zb-h1", 2, 6, "--run", 5, *words, start=start)
            self.assertAlmostEqual(out["measured_bubble_fraction"], out["bubble_fraction"], delta=0.1)
            self.assertGreaterEqual(out["measured_makespan_seconds"], 0.99 * out["makespan"] * 0.005)
        text = schedule("1f1b", 2, 4, "--run", 1, "--local-ranks", 2).stdout
        self.assertIn("measured: bubble", text)

    def test_help(self):
        for command in ("schedule", "bench"):
            result = run(command, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)

    def test_bench_pipeline(self):
        for start, words in (((), ["--local-ranks", 2]), ([MPIEXEC, "-n", "2"], [])):
            result = run("bench", "pipeline", "--json", "--seconds", 0.05, *words, start=start)
            self.assertEqual(result.returncode, 0, result.stderr)
            rows = json.loads(result.stdout)
            self.assertGreaterEqual(len(rows), 1)
            for row in rows:
                self.assertEqual(set(row), {"name", "median", "unit"})
                self.assertEqual(row["unit"], "us")
                self.assertGreater(row["median"], 0)
        self.assertEqual(run("bench", "nothing").returncode, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
