"""trivet convert: models in and out as Hugging Face folders, byte for byte and in little memory."""
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import trivet


def convert(*arguments):
    return subprocess.run([trivet.BINARY, "convert", *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL)


def files_of(folder):
    """The digest of every file, so that a difference does not print them."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def peak_kib(words):
    """Largest resident set of a program, which must succeed."""
    script = ("import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode;"
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)")
    out = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stdout + out.stderr
    return int(out.stdout)


class Convert(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = trivet.new_folder()
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(16 * 32 * 3 + 1))

    def convert(self, source, *flags):
        target = trivet.new_folder() / "out"
        process = convert(source, "--to", target, *flags)
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)
        self.assertEqual(process.stdout, "")
        return target

    def trained(self, **flags):
        export = trivet.new_folder() / "model"
        result = trivet.train(self.data, train_iters=2, num_layers=2, export_hf=export, **flags)
        return export, result

    def test_export_import_export_is_the_same_to_the_byte(self):
        for model in ({"model": "gpt2", "untie-embeddings-and-output-weights": None},
                      {"model": "llama", "num-query-groups": 2}):
            export, _ = self.trained(**model)
            self.assertEqual(files_of(self.convert(export)), files_of(export))
            # through shards and back, from the folder and from its index
            shards = self.convert(export, "--max-shard-size", "100KB")
            self.assertGreater(len(files_of(shards)), 4)
            self.assertNotIn("model.safetensors", files_of(shards))
            self.assertEqual(files_of(self.convert(shards)), files_of(export))
            index = shards / "model.safetensors.index.json"
            self.assertEqual(files_of(self.convert(index)), files_of(export))
            # a run that starts from either is the same run
            again, from_file = self.trained(init_from=export, **model)
            other, from_shards = self.trained(init_from=shards, **model)
            self.assertEqual(from_file.losses(), from_shards.losses())
            self.assertEqual(files_of(again), files_of(other))

    def test_the_mesh_that_trains_does_not_show(self):
        export, _ = self.trained(tp=2, num_query_groups=2)
        names = {path.name for path in export.iterdir()}
        self.assertEqual(names, {"config.json", "model.safetensors"})
        self.assertEqual(files_of(self.convert(export)), files_of(export))

    def test_narrow_types_round_once(self):
        export, _ = self.trained()
        for dtype, name in (("bf16", "bfloat16"), ("fp16", "float16")):
            small = self.convert(export, "--dtype", dtype)
            self.assertEqual(json.loads((small / "config.json").read_text())["torch_dtype"], name)
            self.assertEqual(files_of(self.convert(small)), files_of(small))  # kept
            wide = self.convert(small, "--dtype", "fp32")
            self.assertEqual(files_of(self.convert(wide, "--dtype", dtype)), files_of(small))
            difference = trivet.worst_difference(trivet.read_safetensors(wide / "model.safetensors"),
                                                 trivet.read_safetensors(export / "model.safetensors"))
            self.assertGreater(difference, 0)
            self.assertLess(difference, 1 / 256 if dtype == "bf16" else 1 / 2048)  # weights are below 2

    def test_a_checkpoint_exports_the_same_whatever_mesh_wrote_and_loads_it(self):
        # a vocabulary that divides by nothing, several query heads to a key, stages, ZeRO
        model = {"num_layers": 4, "vocab_size": 257, "num_query_groups": 2, "data": self.data, "lr_decay_style": "constant"}
        for tied in (True, False):
            shape = dict(model, **{"untie-embeddings-and-output-weights": None if tied else True})
            save, export = trivet.new_folder() / "save", trivet.new_folder() / "model"
            trivet.train(**shape, pp=2, tp=2, dp=2, zero_stage=1, train_iters=2, save=save, save_interval=1,
                         export_hf=export)
            want = files_of(export)
            shapes = trivet.read_safetensors(export / "model.safetensors")
            self.assertEqual(shapes["model.embed_tokens.weight"][0], [257, 64])
            self.assertEqual("lm_head.weight" in shapes, not tied)
            self.assertEqual(files_of(self.convert(save)), want)  # the newest
            self.assertEqual(files_of(self.convert(save / "step-00000002")), want)
            self.assertNotEqual(files_of(self.convert(save / "step-00000001")), want)
            shards = self.convert(save, "--max-shard-size", "200KB")
            self.assertEqual(files_of(self.convert(shards)), want)
            for mesh in ({}, {"pp": 4}, {"tp": 4}, {"dp": 4, "zero_stage": 3}, {"pp": 2, "tp": 2}):
                with self.subTest(tied=tied, **mesh):
                    loaded = trivet.new_folder() / "model"
                    trivet.train(**shape, **mesh, train_iters=2, load=save, export_hf=loaded)
                    self.assertEqual(files_of(loaded), want)
        self.refuse(2, ["--config", "checkpoint"], save, "--to", loaded, "--config", loaded / "config.json")
        shard = max((save / "step-00000002").glob("shard-*"))
        data = bytearray(shard.read_bytes())
        data[-5] ^= 1
        shard.write_bytes(data)
        self.refuse(3, [shard.name, "damaged"], save / "step-00000002", "--to", loaded)

    def refuse(self, code, words, *arguments):
        trivet.assert_refused(self, convert(*arguments), code, words)

    def test_refusals(self):
        export, _ = self.trained()
        out = trivet.new_folder() / "out"
        self.refuse(2, "needs the model")
        self.refuse(2, "--to", export)
        self.refuse(2, ["--dtype fp8", "bf16"], export, "--to", out, "--dtype", "fp8")
        for size in ("5 GB", "1.5GB", "-1", "x", "99999999999GB", "GB"):
            self.refuse(2, [f"--max-shard-size {size}", "5GB"], export, "--to", out, "--max-shard-size", size)
        self.refuse(3, "absent", export / "absent", "--to", out)
        self.refuse(2, "config.json", export, "--to", export / "config.json")
        self.refuse(2, ["model.safetensors", "another folder"], export, "--to", export, "--max-shard-size", "100KB")
        tensors = trivet.read_safetensors(export / "model.safetensors")
        tensors["lm_head.weight"][1][7] = 70000.0
        trivet.write_safetensors(export / "model.safetensors", tensors)
        self.refuse(2, ["lm_head.weight has 70000", "beyond the largest fp16"], export, "--to", out, "--dtype", "fp16")
        self.assertEqual(list(out.iterdir()), [])  # nothing half written is left

    def test_memory_does_not_grow_with_the_model(self):
        """2.3 GB of sparse weights whose largest tensor has 64 MiB. The limit: some MiB, and the largest tensor."""
        folder = trivet.new_folder()
        layers, hidden, ffn = 10, 2048, 8192
        config = {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": ffn,
                  "num_attention_heads": 16, "num_key_value_heads": 1, "vocab_size": 97, "max_position_embeddings": 64,
                  "tie_word_embeddings": True}
        (folder / "config.json").write_text(json.dumps(config))
        shapes = {"model.embed_tokens.weight": [97, hidden], "model.norm.weight": [hidden]}
        for layer in range(layers):
            part = f"model.layers.{layer}."
            shapes |= {part + "input_layernorm.weight": [hidden], part + "post_attention_layernorm.weight": [hidden],
                       part + "self_attn.q_proj.weight": [hidden, hidden],
                       part + "self_attn.k_proj.weight": [hidden // 16, hidden],
                       part + "self_attn.v_proj.weight": [hidden // 16, hidden],
                       part + "self_attn.o_proj.weight": [hidden, hidden],
                       part + "mlp.gate_proj.weight": [ffn, hidden], part + "mlp.up_proj.weight": [ffn, hidden],
                       part + "mlp.down_proj.weight": [hidden, ffn]}
        header, end = {}, 0
        for name, shape in shapes.items():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * count]}
            end += 4 * count
        text = json.dumps(header).encode()
        with open(folder / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        self.assertGreater(end, 23 * 10**8)
        shm = Path("/dev/shm")  # the disk is not what is tested
        has_shm = shm.is_dir() and os.statvfs(shm).f_bavail * os.statvfs(shm).f_frsize > 4 * 10**9
        room = tempfile.TemporaryDirectory(prefix="trivet-test-", dir=shm if has_shm else None)
        self.addCleanup(room.cleanup)
        out = Path(room.name) / "out"
        peak = peak_kib([trivet.BINARY, "convert", folder, "--to", out, "--dtype", "bf16", "--max-shard-size", "1GB"])
        self.assertLess(peak, 160 * 1024)
        self.assertEqual(sum(path.stat().st_size for path in out.glob("*.safetensors")) // 10**6, end // 2 // 10**6)


if __name__ == "__main__":
    unittest.main()
