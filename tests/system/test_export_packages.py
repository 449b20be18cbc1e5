"""Exported folders in other people's hands: the safetensors and transformers packages of Python, where they are
installed. Skipped where they are not: Debian 12 has no such packages."""
import importlib.util
import json
import subprocess
import sys
import unittest

import trivet

MODELS = {
    "gpt2": {"model": "gpt2", "untie-embeddings-and-output-weights": None},
    "llama": {"model": "llama", "num-query-groups": 2},
    "llama-tied": {"model": "llama", "num-query-groups": 1, "untie-embeddings-and-output-weights": None},
}


def has(*packages):
    return all(importlib.util.find_spec(package) is not None for package in packages)


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        data = trivet.write_tokens(trivet.scratch.name + "/walk.u16", trivet.walk_tokens(16 * 32 + 1))
        cls.folders = {}
        for name, model in MODELS.items():
            folder = trivet.new_folder() / "model"
            trivet.train(data, num_layers=2, vocab_size=257, train_iters=1, export_hf=folder, **model)
            shards = folder.with_name("shards")
            subprocess.run([trivet.BINARY, "convert", folder, "--to", shards, "--max-shard-size", "100KB"], check=True,
                           capture_output=True)
            cls.folders[name] = (folder, shards)

    def test_safetensors(self):
        from safetensors import safe_open
        for folder, shards in self.folders.values():
            want = trivet.read_safetensors(folder / "model.safetensors")
            for path in [folder / "model.safetensors", *shards.glob("*.safetensors")]:
                with safe_open(path, framework="np") as file:
                    self.assertEqual(file.metadata(), {"format": "pt"})
                    for name in file.keys():
                        shape, values = want[name]
                        tensor = file.get_tensor(name)
                        self.assertEqual(list(tensor.shape), shape)
                        self.assertEqual(tensor.dtype.name, "float32")
                        self.assertEqual(tensor.tobytes(), values.tobytes())
            index = json.loads((shards / "model.safetensors.index.json").read_text())["weight_map"]
            self.assertEqual(set(index), set(want))

    def test_a_file_of_the_package_reads_back(self):
        import numpy
        from safetensors.numpy import save_file
        for folder, _ in self.folders.values():
            tensors = trivet.read_safetensors(folder / "model.safetensors")
            arrays = {name: numpy.array(values, dtype=numpy.float32).reshape(shape)
                      for name, (shape, values) in tensors.items()}
            theirs = trivet.new_folder()
            save_file(arrays, theirs / "model.safetensors")
            (theirs / "config.json").write_text((folder / "config.json").read_text())
            ours = theirs / "out"
            subprocess.run([trivet.BINARY, "convert", theirs, "--to", ours], check=True, capture_output=True)
            self.assertEqual((ours / "model.safetensors").read_bytes(), (folder / "model.safetensors").read_bytes())

    @unittest.skipUnless(has("transformers", "torch"), "no transformers and torch packages")
    def test_transformers(self):
        import torch
        from transformers import AutoModelForCausalLM
        prompt = [3, 250, 17, 4, 256, 90, 1]
        for name, folders in self.folders.items():
            for folder in folders:
                with self.subTest(model=name, folder=folder.name):
                    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
                    self.assertEqual({key: list(value) for key, value in info.items() if value}, {})
                    ids = torch.tensor([prompt])
                    with torch.no_grad():
                        for _ in range(12):
                            ids = torch.cat([ids, model.float()(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
                    out = subprocess.run([trivet.BINARY, "sample", folder, "--prompt-ids", ",".join(map(str, prompt)),
                                          "--temperature", "0", "--max-new-tokens", "12", "--json"], check=True,
                                         capture_output=True).stdout
                    self.assertEqual(json.loads(out)["ids"], ids[0, len(prompt):].tolist())

    @unittest.skipUnless(has("transformers", "torch"), "no transformers and torch packages")
    def test_a_folder_of_transformers_reads_back(self):
        from transformers import AutoModelForCausalLM
        for name, (folder, _) in self.folders.items():
            with self.subTest(model=name):
                theirs = trivet.new_folder() / "model"
                AutoModelForCausalLM.from_pretrained(folder).save_pretrained(theirs, max_shard_size="100KB")
                ours = trivet.new_folder() / "out"
                subprocess.run([trivet.BINARY, "convert", theirs, "--to", ours], check=True, capture_output=True)
                self.assertEqual((ours / "model.safetensors").read_bytes(),
                                 (folder / "model.safetensors").read_bytes())


if __name__ == "__main__":
    if not has("safetensors", "numpy"):
        print("skipped: Python has no safetensors and numpy packages")
        sys.exit(77)
    unittest.main()
