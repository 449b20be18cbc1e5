"""trivet bench step, trivet bench kernels and --mock-data: structure, counts and sums of what they print, never times."""
import json
import platform
import re
import subprocess
import sys
import unittest
import xml.dom.minidom
from pathlib import Path

import trivet
from trivet import BINARY, MPIEXEC

# 2 layers, small enough for a second under a sanitizer; peaks of a moment.
SHAPE = ["--num-layers", 2, "--hidden-size", 32, "--num-attention-heads", 4, "--vocab-size", 96, "--seq-length", 16]
QUICK = ["--seconds", 0.01, "--matrix-size", 64, "--memory-size", 1, "--threads", 1]
STEPS = ["--steps", 3, "--warmup-steps", 1]
PARTS = ["matmul", "attention", "norm and activation", "embedding", "loss", "optimizer", "communication", "idle", "other"]


def run(*words, start=()):
    return subprocess.run([*start, BINARY, "bench", *map(str, words)], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL)


def step(*words, start=()):
    result = run("step", *SHAPE, *QUICK, *STEPS, "--json", *words, start=start)
    if result.returncode != 0:
        raise AssertionError(f"exit {result.returncode}: {result.stderr}")
    return json.loads(result.stdout)


def calls(out):
    return {kernel["name"]: kernel["calls"] for kernel in out["kernels"]}


def products(out):
    """FLOPs by kernel, both forms of the matrix product as one."""
    flops = {kernel["name"]: kernel["flops"] for kernel in out["kernels"] if kernel["flops"] > 0}
    flops["matmul"] = flops.get("matmul", 0) + flops.pop("matmul_to_f32", 0)
    return flops


class BenchStep(unittest.TestCase):
    def check_sums(self, out, ranks):
        self.assertEqual([part["name"] for part in out["parts"]], PARTS)
        self.assertEqual(len(out["ranks"]), ranks)
        for steps in out["ranks"]:
            self.assertEqual(len(steps), 3)
            for one in steps:
                self.assertEqual(len(one["parts"]), len(PARTS))
                self.assertAlmostEqual(sum(one["parts"]), one["seconds"], delta=1e-9 * one["seconds"])
                self.assertTrue(all(part >= 0 for part in one["parts"][:-1]))
                self.assertGreaterEqual(one["parts"][-1], -1e-6)
        self.assertAlmostEqual(sum(part["share"] for part in out["parts"]), 1, delta=1e-9)
        # kernels: the groups of all ranks and steps again, by kernel
        for number, name in enumerate(PARTS[:6]):
            by_kernel = sum(kernel["seconds"] for kernel in out["kernels"] if kernel["group"] == name)
            by_rank = sum(one["parts"][number] for steps in out["ranks"] for one in steps)
            self.assertAlmostEqual(by_kernel, by_rank, delta=1e-9 + 1e-6 * by_rank)
        # medians, means and rates are those of the steps
        slowest = sorted(max(steps[s]["seconds"] for steps in out["ranks"]) for s in range(3))
        self.assertEqual([out["step_seconds"][key] for key in ("low", "median", "high")], slowest)
        tokens = out["tokens_per_step"]
        self.assertAlmostEqual(out["tokens_per_second"]["median"] * slowest[1], tokens, delta=1e-6 * tokens)
        flops = tokens * out["flops_per_token"]
        self.assertAlmostEqual(out["model_flops_per_second"]["median"] * slowest[1], flops, delta=1e-6 * flops)
        share = out["model_flops_per_second"]["median"] / out["peak"]["flops_per_second"]
        self.assertAlmostEqual(out["share_of_peak"]["median"], share, delta=1e-9 * share)
        self.assertTrue(0 < out["peak"]["median_flops_per_second"] <= out["peak"]["flops_per_second"])
        beside = out["flops_per_second_beside"]
        self.assertEqual(len(beside), 4)
        seconds = [max(steps[s]["seconds"] for steps in out["ranks"]) for s in range(3)]
        shares = sorted(flops / seconds[s] / ((beside[s] + beside[s + 1]) / 2) for s in range(3))
        for key, one in zip(("low", "median", "high"), shares):
            self.assertAlmostEqual(out["share_of_products_beside"][key], one, delta=1e-9 * one)
        traffic, moved = out["memory_traffic"], sum(kernel["bytes"] for kernel in out["kernels"]) / 3
        self.assertGreater(moved, 4 * out["tokens_per_step"])
        self.assertAlmostEqual(traffic["bytes_per_step"], moved, delta=1e-9 * moved)
        at_peak = moved / out["peak"]["bytes_per_second"]
        self.assertAlmostEqual(traffic["seconds_at_peak"], at_peak, delta=1e-9 * at_peak)
        self.assertAlmostEqual(traffic["share_of_step"] * slowest[1], at_peak, delta=1e-9 * at_peak)
        for number, part in enumerate(out["parts"]):
            of_ranks = [sum(one["parts"][number] for one in steps) / 3 for steps in out["ranks"]]
            self.assertAlmostEqual(part["mean"], sum(of_ranks) / ranks, delta=1e-12 + 1e-9 * abs(part["mean"]))
            self.assertAlmostEqual(part["slowest"], max(0, *of_ranks, 0), delta=1e-12 + 1e-9 * abs(part["slowest"]))

    def test_one_rank(self):
        out = step("--model", "gpt2", "--micro-batch-size", 2)
        self.check_sums(out, 1)
        self.assertEqual(out["tokens_per_step"], 32)
        # N: per layer 12 C^2 + 13 C, the last norm 2 C, the head V C; the position table is not multiplied
        matrices = 2 * (12 * 32**2 + 13 * 32) + 2 * 32 + 96 * 32
        self.assertEqual(out["flops_per_token"], 6 * matrices + 12 * 2 * 32 * 16)
        self.assertEqual(out["sizes"]["ranks"], 1)
        # 3 measured steps: the warm-up is not among them
        counted = calls(out)
        self.assertEqual({k: v for k, v in counted.items() if "attention" in k or "gelu" in k or "entropy" in k},
                         {"attention_forward": 6, "attention_backward": 6, "gelu_forward": 6, "gelu_backward": 6,
                          "cross_entropy": 3})
        self.assertEqual((counted["layernorm_forward"], counted["embedding_forward"]), (15, 6))
        self.assertNotIn("rmsnorm_forward", counted)
        # products of a step: 6 x rows x weights of the matrices, whatever pieces they come in
        flops = products(out)
        self.assertEqual(flops["matmul"], 6 * 32 * (2 * 12 * 32**2 + 96 * 32) * 3)
        pairs = 2 * 4 * (16 * 17 // 2) * 2 * 8  # sequences, heads, causal pairs, FLOPs of a head of 8
        self.assertEqual(flops["attention_forward"], 2 * pairs * 2 * 3)
        self.assertEqual(flops["attention_backward"], 5 * pairs * 2 * 3)
        self.assertEqual((out["parts"][6]["mean"], out["parts"][7]["mean"]), (0, 0))
        [memory] = out["memory_bytes"]
        self.assertEqual(memory["measured"], memory["predicted"])
        total, buffers = sum(memory["measured"].values()), memory["measured"]["buffers"]
        self.assertGreater(buffers, 0)
        self.assertAlmostEqual(memory["of_need"], total / (total - buffers), delta=1e-9)

    def test_bf16_is_that_of_train(self):
        fp32, bf16 = step("--model", "gpt2"), step("--model", "gpt2", "--precision", "bf16")
        self.check_sums(bf16, 1)
        self.assertEqual((fp32["sizes"]["precision"], bf16["sizes"]["precision"]), ("fp32", "bf16"))
        self.assertEqual(products(bf16), products(fp32))
        counted = calls(bf16)
        # forward and input gradients are stored in bf16, gradients of weights in fp32: 2 to 1 of all products
        by_kernel = {kernel["name"]: kernel["flops"] for kernel in bf16["kernels"]}
        self.assertEqual(by_kernel["matmul"], 2 * by_kernel["matmul_to_f32"])
        self.assertEqual(counted["adamw"], calls(fp32)["adamw"])
        self.assertNotIn("to_bf16", counted)  # masters are rounded where they are updated
        of = {kernel["name"]: kernel["bytes"] for kernel in fp32["kernels"]}
        for kernel in bf16["kernels"]:  # half of what is stored, all of the optimizer's and the weights in bf16
            if kernel["name"] == "gelu_forward":
                self.assertEqual(2 * kernel["bytes"], of["gelu_forward"])
            if kernel["name"] == "adamw":
                self.assertEqual(kernel["bytes"] / 30, of["adamw"] / 28)

    def test_meshes(self):
        one = step("--model", "llama", "--global-batch-size", 4)
        self.check_sums(one, 1)
        for words, start in ((["--pp", 2, "--schedule", "zb-h1", "--local-ranks", 2], ()),
                             (["--tp", 2, "--sequence-parallel"], (MPIEXEC, "-n", "2")),
                             (["--dp", 2, "--zero-stage", 2, "--local-ranks", 2], ())):
            with self.subTest(words=words):
                out = step("--model", "llama", "--global-batch-size", 4, *words, start=start)
                self.check_sums(out, 2)
                self.assertEqual(out["tokens_per_step"], one["tokens_per_step"])
                self.assertEqual(out["flops_per_token"], one["flops_per_token"])
                self.assertEqual(products(out), products(one))  # only elsewhere

    def test_recompute_costs_a_forward(self):
        plain, full = step("--model", "gpt2"), step("--model", "gpt2", "--recompute", "full")
        self.assertEqual(calls(full)["attention_forward"], 2 * calls(plain)["attention_forward"])
        self.assertEqual(full["flops_per_token"], plain["flops_per_token"])

    def test_presets_and_text(self):
        result = run("step", "--preset", "tiny-llama", *QUICK, "--steps", 1, "--warmup-steps", 1)
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stdout.splitlines()
        self.assertLessEqual(max(map(len, lines)), 80)
        for word in ["tokens/s", "% of the matrix peak", "memory traffic a step", "6 N + 12 L C S", "rmsnorm_backward", *PARTS]:
            self.assertTrue(any(line.startswith(word) or word in line for line in lines), word)
        for name, params in (("small-gpt2", 30044544), ("small-llama", 55976448)):
            dry = trivet.run(trivet.scratch.name, {"preset": name, "dry-run": True, "json": True})
            self.assertEqual(json.loads(dry.out)["parameters"], params, name)

    def test_refusals(self):
        for words, why in ((["--data", "x.u16"], "unknown flag --data"), (["--train-iters", 3], "unknown flag --train-iters"),
                           (["--steps", 0], "--steps 0: must be"), (["--pp", 3], "does not divide the 1 rank(s)"),
                           (["--preset", "none"], "--preset none is not known"),
                           (["--preset", "tiny-gpt2", "--config", "c.json"], "--config and --preset both")):
            with self.subTest(words=words):
                trivet.assert_refused(self, run("step", *words), 2, why)
        help_text = run("step", "--help").stdout
        self.assertIn("--warmup-steps", help_text)
        self.assertIn("--zero-stage", help_text)
        self.assertNotIn("--metrics", help_text)
        self.assertLessEqual(max(map(len, help_text.splitlines())), 80)


class BenchLinks(unittest.TestCase):
    COLLECTIVES = ["all_reduce", "reduce_scatter", "all_gather"]

    def rows(self, ranks, start, *words):
        result = run("links", "--seconds", 0.01, "--json", *words, start=start)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def check(self, rows, ranks, mib, ways):
        """Latency and bandwidth, then for each way the copy that all ranks make and each collective's share of it."""
        names = [row["name"] for row in rows]
        want = ["latency, same node", "bandwidth, same node"]
        for way in ways:
            want += [f"copy of {mib} MiB, every rank"] + [f"{name}, {ranks} ranks, by {way}" for name in self.COLLECTIVES]
        self.assertEqual(names, want)
        for row in rows:
            self.assertGreater(row["median"], 0)
            self.assertEqual("share_of_peak" in row, " ranks, by " in row["name"], row)
            self.assertGreater(row.get("share_of_peak", 1), 0)

    def test_threads_go_through_memory(self):
        self.check(self.rows(2, (), "--local-ranks", 2), 2, 64, ["memory", "messages"])

    def test_processes(self):
        rows = self.rows(3, (MPIEXEC, "-n", "3"))
        reached = any(row["name"].endswith("by memory") for row in rows)  # where the system lets them
        self.check(rows, 3, 42, ["memory", "messages"] if reached else ["messages"])

    @unittest.skipUnless(platform.machine() == "x86_64", "the number of the system call is that of x86-64")
    def test_messages_where_memory_is_out_of_reach(self):
        """Containers may refuse process_vm_readv: then all goes by messages, and bench links says so. UCX must not want it."""
        refused = [sys.executable, str(Path(__file__).parent / "refuse_call.py"), "310"]
        rows = self.rows(2, (MPIEXEC, "-n", "2", "-env", "UCX_TLS", "posix,self", *refused))
        self.check(rows, 2, 64, ["messages"])

    def test_text_and_refusal(self):
        result = run("links", "--seconds", 0.01, "--local-ranks", 2)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sum("% of the copy" in line for line in result.stdout.splitlines()), 6)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)
        trivet.assert_refused(self, run("links"), 2, "bench links needs at least 2 ranks, there is 1")


class BenchKernels(unittest.TestCase):
    def kernels(self, *words):
        result = run("kernels", *SHAPE, *QUICK, "--json", *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_every_kernel_against_its_roofline(self):
        header = (Path(__file__).parents[2] / "kernels" / "kernels.h").read_text()
        every = set(re.findall(r"^ +X\((\w+), ", header, re.M))
        for model, products in (("gpt2", ["qkv", "out", "up", "down", "head"]),
                                ("llama", ["query", "key", "out", "gate", "down", "head"])):
            out = self.kernels("--model", model, "--micro-batch-size", 2)
            self.assertEqual({row["kernel"] for row in out["kernels"]}, every)
            names = [row["name"] for row in out["kernels"]]
            self.assertEqual(len(names), len(set(names)))
            self.assertEqual([n for n in names if n.startswith("matmul")],
                             [f"matmul, {product}, {form}" for product in products for form in ("y", "dx", "dw")])
            for row in out["kernels"]:
                self.assertGreaterEqual(row["rounds"], 3)
                by_flops = row["flops"] / out["peak"]["flops_per_second"]
                by_bytes = row["bytes"] / out["peak"]["bytes_per_second"]
                self.assertAlmostEqual(row["roofline_seconds"], max(by_flops, by_bytes), delta=1e-9 * by_bytes)
                self.assertEqual(row["bound"], "compute" if by_flops > by_bytes else "memory")
                self.assertAlmostEqual(row["share_of_roofline"] * row["seconds"]["median"], row["roofline_seconds"],
                                       delta=1e-9 * by_bytes + 1e-9 * by_flops)
                self.assertTrue(0 < row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"])
                beside = row["share_of_products_beside"]
                self.assertEqual(beside is None, row["flops"] == 0, row["name"])
                if beside is not None:
                    self.assertTrue(0 < beside["low"] <= beside["median"] <= beside["high"])

    def test_sizes_are_the_model_s(self):
        def work(out):
            return {row["name"]: (row["flops"], row["bytes"]) for row in out["kernels"]}

        whole, half = work(self.kernels("--model", "gpt2")), work(self.kernels("--model", "gpt2", "--tp", 2))
        S, C, F, V = 16, 32, 128, 96
        self.assertEqual(whole["matmul, up, y"], (2 * S * C * F, 4 * (S * C + C * F + S * F)))
        self.assertEqual(whole["matmul, head, dw"], (2 * S * C * V, 4 * (S * C + 2 * C * V + S * V)))
        self.assertEqual(whole["attention_forward"], (2 * 4 * (S * (S + 1) // 2) * 2 * 8, 4 * (4 * S * C + 4 * S)))
        self.assertEqual(whole["cross_entropy_backward"], (0, 4 * (2 * S * V + 2 * S)))
        self.assertEqual(whole["cross_entropy"], (0, 4 * (2 * S * V + 4 * S)))
        self.assertEqual(whole["adamw"], (0, 4 * 7 * C * F))
        for name in ("matmul, qkv, y", "matmul, out, dx", "matmul, down, dw", "attention_backward"):
            self.assertEqual(half[name][0] * 2, whole[name][0], name)
        self.assertEqual(half["gelu_forward"][1] * 2, whole["gelu_forward"][1])
        self.assertEqual(half["layernorm_forward"], whole["layernorm_forward"])

    def test_bf16(self):
        out = self.kernels("--model", "gpt2", "--precision", "bf16")
        rows = {row["name"]: row for row in out["kernels"]}
        S, C, F, V = 16, 32, 128, 96
        self.assertEqual(out["sizes"]["precision"], "bf16")
        self.assertEqual(rows["matmul, up, y"]["bytes"], 2 * (S * C + C * F + S * F))
        self.assertEqual(rows["matmul, head, dw"]["kernel"], "matmul_to_f32")
        self.assertEqual(rows["matmul, head, dw"]["bytes"], 2 * (S * C + S * V) + 4 * 2 * C * V)
        self.assertEqual(rows["adamw"]["bytes"], (4 * 7 + 2) * C * F)
        self.assertEqual(rows["to_bf16"]["bytes"], 6 * C * F)

    def test_some_kernels(self):
        names = [row["name"] for row in self.kernels("--model", "gpt2", "--only", "up, d")["kernels"]]
        self.assertEqual(names, ["matmul, up, dx", "matmul, up, dw"])
        trivet.assert_refused(self, run("kernels", *SHAPE, *QUICK, "--model", "gpt2", "--only", "atention"), 2,
                              "--only atention: no kernel's name holds that")

    def test_text_and_refusals(self):
        result = run("kernels", *SHAPE, *QUICK, "--model", "llama")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)
        self.assertIn("peaks: matrix", result.stdout)
        two = run("kernels", *SHAPE, *QUICK, "--model", "llama", start=(MPIEXEC, "-n", "2"))
        self.assertEqual(two.returncode, 2)
        self.assertIn("bench kernels times one rank, there are 2", two.stderr)
        trivet.assert_refused(self, run("kernels", "--pp", 2), 2, "unknown flag --pp")
        trivet.assert_refused(self, run("kernels"), 2, "the model's shape is not complete")


class Growth(unittest.TestCase):
    """scripts/growth: a row, a point of the picture and its ceilings for each run."""

    SCRIPT = Path(__file__).parents[2] / "scripts" / "growth"
    TINY = ["--num-layers", 2, "--hidden-size", 32, "--num-attention-heads", 4, "--vocab-size", 96, "--seq-length", 16,
            "--matrix-size", 64, "--memory-size", 1]

    def grow(self, *words):
        return subprocess.run([str(self.SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=120)

    def check(self, axis, values, series, *words):
        folder = trivet.new_folder()
        ran = self.grow("--axes", axis, "--values", *values, "--steps", 1, "--seconds", 0.01, "--json", folder / "g.json",
                        "--svg", folder / "g.svg", *words, "--", *self.TINY)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        points = json.loads((folder / "g.json").read_text())
        self.assertEqual([(p["series"], p["value"]) for p in points], series)
        rows = ran.stdout.splitlines()
        self.assertEqual(len(rows), 2 + len(series))
        self.assertTrue(all(row.count("|") == rows[0].count("|") for row in rows))
        lines = len({name for name, _ in series} - {"one"})
        picture = xml.dom.minidom.parse(str(folder / "g.svg"))
        drawn = lines + sum(name == "one" for name, _ in series) * (lines - 1) + len(series) - lines
        self.assertEqual(len(picture.getElementsByTagName("circle")), drawn)
        self.assertEqual(len(picture.getElementsByTagName("polyline")), 3 * lines)
        again = self.grow("--draw", folder / "g.json", "--svg", folder / "again.svg")
        self.assertEqual((again.returncode, again.stdout), (0, ""))
        self.assertEqual((folder / "again.svg").read_bytes(), (folder / "g.svg").read_bytes())
        self.check_docs(folder, rows)
        for p in points: # the share of the peak is the distance from its ceiling
            self.assertAlmostEqual(p["tokens_per_second"]["median"] / p["matrix_ceiling"], p["share_of_peak"],
                                   delta=1e-9 * p["share_of_peak"])
        return points

    def check_docs(self, folder, rows):
        """--docs puts the table and the picture between its marks, and changes nothing else."""
        marks = ("<!-- growth: written by scripts/growth --docs -->\n", "<!-- end of growth -->\n")
        page = (self.SCRIPT.parents[1] / "docs" / "performance.md").read_text()
        (folder / "pictures").mkdir()
        (folder / "performance.md").write_text(page)
        self.assertEqual(self.grow("--draw", folder / "g.json", "--docs", folder).returncode, 0)
        written = (folder / "performance.md").read_text()
        self.assertEqual(written.split(marks[0])[0], page.split(marks[0])[0])
        self.assertEqual(written.split(marks[1])[1], page.split(marks[1])[1])
        inside = written.split(marks[0])[1].split(marks[1])[0].splitlines()
        self.assertEqual([line for line in inside if line.startswith("|")], rows)
        self.assertEqual((folder / "pictures" / "growth.svg").read_bytes(), (folder / "g.svg").read_bytes())

    def test_layers(self):
        points = self.check("layers", [1, 3], [("layers", 1), ("layers", 3)])
        self.assertEqual([p["sizes"]["num_layers"] for p in points], [1, 3])

    def test_ranks(self):
        points = self.check("ranks", [1, 2], [("one", 1), ("dp", 2), ("tp", 2), ("pp", 2)], "--threads", 2)
        self.assertEqual([p["sizes"]["ranks"] for p in points], [1, 2, 2, 2])
        self.assertEqual([p["sizes"]["threads"] for p in points], [2, 1, 1, 1])  # which ranks share
        self.assertEqual({p["sizes"]["global_batch_size"] for p in points}, {8})

    def test_refusals(self):
        self.assertEqual(self.grow("--values", 1).returncode, 2)
        self.assertNotEqual(self.grow("--axes", "layers", "--", "--num-layers").returncode, 0)


class MockData(unittest.TestCase):
    FLAGS = {"preset": "tiny-gpt2", "mock-data": True, "train-iters": 3, "global-batch-size": 2, "threads": 1}

    def test_same_tokens_on_every_mesh(self):
        one = trivet.run(trivet.new_folder(), self.FLAGS)
        self.assertEqual(one.code, 0, one.err)
        again = trivet.run(trivet.new_folder(), self.FLAGS)
        self.assertEqual(one.losses(), again.losses())
        two = trivet.run(trivet.new_folder(), dict(self.FLAGS, dp=2), ranks=2)
        for a, b in zip(one.losses(), two.losses()):
            self.assertLess(trivet.relative(a, b), 2e-6)
        other = trivet.run(trivet.new_folder(), dict(self.FLAGS, seed=5))
        self.assertNotEqual(one.losses(), other.losses())

    def test_refused_beside_files(self):
        for name, value in (("data", "x.u16"), ("valid-data", "x.u16"), ("data-format", "u16")):
            result = trivet.run(trivet.new_folder(), dict(self.FLAGS, **{name: value}))
            self.assertEqual(result.code, 2)
            self.assertIn(f"--mock-data is in place of files: give it or --{name}", result.err)
        result = trivet.run(trivet.new_folder(), dict(self.FLAGS, **{"samples-cross-documents": "off"}))
        self.assertEqual(result.code, 2)
        self.assertIn("--samples-cross-documents off: --mock-data has no documents", result.err)

    def test_a_longer_run_goes_on_with_the_same_tokens(self):
        folder = trivet.new_folder()
        saved = folder / "saved"
        whole = trivet.run(folder, dict(self.FLAGS, **{"train-iters": 4, "lr-decay-style": "constant"}))
        first = trivet.run(folder, dict(self.FLAGS, **{"train-iters": 2, "lr-decay-style": "constant", "save": saved}))
        self.assertEqual(first.code, 0, first.err)
        rest = trivet.run(trivet.new_folder(), dict(self.FLAGS, **{"train-iters": 4, "load": saved}))
        self.assertEqual(rest.code, 0, rest.err)
        self.assertEqual(rest.losses(), whole.losses()[2:])
        # as of files: where the tokens are from is said again
        without = {name: value for name, value in self.FLAGS.items() if name != "mock-data"}
        silent = trivet.run(folder, dict(without, **{"train-iters": 4, "load": saved}))
        self.assertEqual(silent.code, 2)
        self.assertIn("--data is required", silent.err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
