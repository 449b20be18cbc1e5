"""trivet inspect: what models and token files hold, and that damage does not pass."""
import json
import math
import struct
import subprocess
import unittest
from array import array

import trivet


def inspect(*arguments):
    return subprocess.run([trivet.BINARY, "inspect", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)


class Inspect(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = trivet.new_folder()
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(16 * 32 + 1))

    def report(self, *arguments):
        process = inspect(*arguments, "--json")
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)
        return json.loads(process.stdout)

    def refuse(self, code, words, *arguments):
        trivet.assert_refused(self, inspect(*arguments), code, words)

    def exported(self):
        export = trivet.new_folder() / "model"
        trivet.train(self.data, train_iters=1, num_layers=2, num_query_groups=2, export_hf=export)
        return export

    def test_a_model(self):
        export = self.exported()
        tensors = trivet.read_safetensors(export / "model.safetensors")
        report = self.report(export)
        self.assertEqual(report["kind"], "Hugging Face model")
        self.assertEqual((report["family"], report["layers"], report["hidden_size"], report["heads"],
                          report["kv_heads"], report["vocab_size"], report["tied"]),
                         ("llama", 2, 64, 4, 2, 256, False))
        self.assertEqual(report["parameters"], sum(len(values) for _, values in tensors.values()))
        self.assertEqual(report["tensor_bytes"], 4 * report["parameters"])
        self.assertEqual([entry["name"] for entry in report["tensors"]], list(tensors))
        for entry in report["tensors"]:
            shape, values = tensors[entry["name"]]
            self.assertEqual((entry["shape"], entry["dtype"], entry["bytes"]), (shape, "F32", 4 * len(values)))
            self.assertEqual(entry["nonfinite"], 0)
            self.assertAlmostEqual(entry["largest"], max(map(abs, values)), delta=1e-8)
            self.assertAlmostEqual(entry["rms"], math.sqrt(sum(x * x for x in values) / len(values)), delta=1e-8)
        quick = self.report(export, "--quick")
        self.assertNotIn("nonfinite", quick)
        self.assertNotIn("rms", quick["tensors"][0])
        # the file alone, and for people
        self.assertEqual(self.report(export / "model.safetensors")["tensors"], report["tensors"])
        self.assertEqual(self.report(export / "config.json")["layers"], 2)
        text = inspect(export).stdout
        for word in ("Hugging Face model", "kv_heads       2", "model.layers.1.mlp.down_proj.weight", "[64, 256]"):
            self.assertIn(word, text)

    def test_damage(self):
        export = self.exported()
        file = export / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        self.refuse(3, "model.safetensors", export)
        self.refuse(3, "model.safetensors", file, "--quick")
        file.write_bytes(whole)
        tensors = trivet.read_safetensors(file)
        name = "model.layers.1.self_attn.k_proj.weight"
        tensors[name][1][5] = math.nan
        tensors[name][1][6] = -math.inf
        trivet.write_safetensors(file, tensors)
        process = inspect(export, "--json")
        self.assertEqual(process.returncode, 4)
        self.assertIn("2 numbers are not finite", process.stderr)
        report = json.loads(process.stdout)
        self.assertEqual(report["nonfinite"], 2)
        self.assertEqual({t["name"]: t["nonfinite"] for t in report["tensors"] if t["nonfinite"]}, {name: 2})
        self.assertIn("2 NOT FINITE", inspect(export).stdout)
        del tensors[name]
        trivet.write_safetensors(file, tensors)
        self.refuse(3, [name, "missing"], export)
        self.refuse(3, "absent", self.folder / "absent.safetensors")
        self.refuse(3, "neither", trivet.new_folder())
        self.refuse(2, "needs a file")

    def test_a_checkpoint(self):
        save = trivet.new_folder() / "save"
        trivet.train(self.data, num_layers=2, train_iters=2, save=save, save_interval=1, tp=2)
        report = self.report(save)
        self.assertEqual((report["kind"], report["step"], report["samples"], report["optimizer"], report["layers"],
                          report["hashes"]), ("checkpoint", 2, 32, "adam", 2, "verified"))
        step = save / "step-00000002"
        self.assertEqual(report["checkpoint"], str(step))
        self.assertEqual({shard["file"]: shard["bytes"] for shard in report["shards"]},
                         {path.name: path.stat().st_size for path in step.glob("shard-*")})
        states = {}
        for tensor in report["tensors"]:
            states.setdefault(tensor["state"], []).append(tensor)
        self.assertEqual(set(states), {"weight", "exp_avg", "exp_avg_sq"})
        weights = {tensor["name"]: tensor for tensor in states["weight"]}
        export = trivet.new_folder() / "model"
        trivet.train(self.data, num_layers=2, train_iters=2, load=save, export_hf=export)
        tensors = trivet.read_safetensors(export / "model.safetensors")
        self.assertEqual(set(weights), set(tensors))
        for name, (shape, values) in tensors.items():
            self.assertEqual(weights[name]["shape"], shape)
            self.assertAlmostEqual(weights[name]["largest"], max(map(abs, values)), delta=1e-8)
            self.assertAlmostEqual(weights[name]["rms"], math.sqrt(sum(x * x for x in values) / len(values)),
                                   delta=1e-8)
        self.assertEqual(report["tensor_bytes"], 3 * 4 * sum(len(values) for _, values in tensors.values()))
        self.assertEqual(self.report(save / "step-00000001")["step"], 1)
        # one bit anywhere
        for path in sorted(step.iterdir()):
            whole = path.read_bytes()
            path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
            self.refuse(3, path.name, step)
            path.write_bytes(whole)
        self.report(step)

    def test_names_do_not_reach_the_terminal_as_they_are(self):
        path = trivet.new_folder() / "x.safetensors"
        trivet.write_safetensors(path, {"a\x1b[2Jb": ([1], array("f", [1]))})
        self.assertIn("a?[2Jb", inspect(path).stdout)
        self.assertNotIn("\x1b", inspect(path).stdout)
        self.assertEqual(self.report(path)["tensors"][0]["name"], "a\x1b[2Jb")

    def test_token_files(self):
        report = self.report(self.data)
        self.assertEqual(report, {"kind": "token file", "path": str(self.data), "format": "u16", "tokens": 16 * 32 + 1,
                                  "largest_id": max(array("H", self.data.read_bytes()))})
        wide = trivet.write_tokens(self.folder / "wide.u32", [5, 70000, 4294967295], "I")
        self.assertEqual(self.report(wide)["largest_id"], 4294967295)
        self.assertEqual(self.report(wide, "--data-format", "u16")["tokens"], 6)
        self.assertEqual(self.report(wide, "--quick")["tokens"], 3)
        pair = self.folder / "pair.bin"
        trivet.write_tokens(pair, [1, 2, 3, 9, 4])
        pair.with_suffix(".idx").write_bytes(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 2, 3) +
                                             struct.pack("<2i2q3q", 3, 2, 0, 6, 0, 1, 2))
        report = self.report(pair)
        self.assertEqual((report["format"], report["tokens"], report["documents"], report["largest_id"]),
                         ("megatron", 5, 2, 9))
        self.refuse(3, ["token 1 is 70000", "vocabulary of 256"], wide, "--vocab-size", 256)
        self.refuse(2, ["--data-format"], self.folder / "model.unknown")


if __name__ == "__main__":
    unittest.main()
