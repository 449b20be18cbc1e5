"""trivet inspect: what models and token files hold, and that damage does not pass."""
import json
import math
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

    def test_token_files(self):
        report = self.report(self.data)
        self.assertEqual(report, {"kind": "token file", "path": str(self.data), "format": "u16", "tokens": 16 * 32 + 1,
                                  "largest_id": max(array("H", self.data.read_bytes()))})
        wide = trivet.write_tokens(self.folder / "wide.u32", [5, 70000, 4294967295], "I")
        self.assertEqual(self.report(wide)["largest_id"], 4294967295)
        self.assertEqual(self.report(wide, "--data-format", "u16")["tokens"], 6)
        self.assertEqual(self.report(wide, "--quick")["tokens"], 3)
        self.refuse(3, ["token 1 is 70000", "vocabulary of 256"], wide, "--vocab-size", 256)
        self.refuse(2, ["--data-format"], self.folder / "model.unknown")


if __name__ == "__main__":
    unittest.main()
