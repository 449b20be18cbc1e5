"""trivet sample: tokens from a trained model."""
import json
import math
import os
import subprocess
import unittest

import trivet

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 80


def sample(*arguments, launcher=(), **environment):
    return subprocess.run([*launcher, trivet.BINARY, "sample", *map(str, arguments)], capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=dict(os.environ, **environment))


class Sample(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = trivet.new_folder()
        (cls.folder / "text.txt").write_text(TEXT)
        cls.model = cls.folder / "model"
        trivet.train(cls.folder / "text.txt", data_format="text", train_iters=100, num_layers=2, lr=1e-2,
                     seq_length=64, global_batch_size=8, export_hf=cls.model)

    def text(self, *arguments):
        process = sample(self.model, *arguments)
        self.assertEqual(process.returncode, 0, process.stderr)
        return process.stdout

    def ids(self, *arguments):
        return [json.loads(line)["ids"] for line in self.text(*arguments, "--json").splitlines()]

    def test_what_was_learned_comes_out(self):
        prompt = "the cat sat on the mat, and the "
        out = self.text("--prompt", prompt, "--temperature", 0, "--max-new-tokens", 20).decode()
        self.assertTrue(out.startswith(prompt) and out.endswith("\n"), out)
        self.assertEqual(out[len(prompt):-1], "dog sat on the log. ")
        (self.folder / "prompt").write_bytes(prompt.encode())
        self.assertEqual(self.text("--prompt-file", self.folder / "prompt", "--temperature", 0, "--max-new-tokens", 20),
                         out.encode())
        numbers = ",".join(str(byte) for byte in prompt.encode())
        self.assertEqual(self.text("--prompt-ids", numbers, "--temperature", 0, "--max-new-tokens", 20).decode(),
                         " ".join(str(byte) for byte in out[:-1].encode()) + "\n")
        self.assertEqual(self.ids("--prompt-ids", numbers, "--temperature", 0, "--max-new-tokens", 20),
                         [list(out[len(prompt):-1].encode())])

    def test_same_seed_same_text(self):
        flags = ["--prompt", "the ", "--temperature", 3, "--max-new-tokens", 40]
        one = self.text(*flags, "--seed", 5)
        self.assertEqual(self.text(*flags, "--seed", 5), one)
        self.assertNotEqual(self.text(*flags, "--seed", 6), one)
        first, second = self.ids(*flags, "--seed", 5, "--num-samples", 2)
        self.assertEqual(bytes(first), one[4:-1])
        self.assertNotEqual(first, second)
        # no more than the likeliest is the likeliest, however it is said
        greedy = self.ids("--prompt", "the ", "--temperature", 0, "--max-new-tokens", 40)
        self.assertEqual(self.ids(*flags, "--top-k", 1), greedy)
        self.assertEqual(self.ids(*flags, "--top-p", 1e-9), greedy)
        # a sample ends before the token that ends it
        stop = greedy[0][12]
        self.assertEqual(self.ids("--prompt", "the ", "--temperature", 0, "--stop-id", stop),
                         [greedy[0][:greedy[0].index(stop)]])
        self.assertEqual(self.ids("--prompt", "x", "--max-new-tokens", 0), [[]])

    def refuse(self, code, words, *arguments, launcher=()):
        process = sample(*arguments, launcher=launcher)
        lines = [line for line in process.stderr.decode().splitlines() if line.startswith("trivet:")]
        self.assertEqual((process.returncode, process.stdout, len(lines)), (code, b"", 1), lines)
        for word in words if isinstance(words, list) else [words]:
            self.assertIn(word, lines[0])

    def test_refusals(self):
        self.refuse(2, "needs a model")
        self.refuse(3, "absent", self.folder / "absent")
        self.refuse(2, "--temperature -1", self.model, "--temperature", -1)
        self.refuse(2, "--top-p 0", self.model, "--top-p", 0)
        self.refuse(2, "give one of them", self.model, "--prompt", "a", "--prompt-ids", "1")
        self.refuse(2, ["--prompt-ids 1,b", "12,7"], self.model, "--prompt-ids", "1,b")
        self.refuse(2, ["token 1 is 256", "vocabulary of 256"], self.model, "--prompt-ids", "1,256")
        self.refuse(2, "not in the format", self.model, "--prompt-ids", "1", "--format", "text")
        self.refuse(2, "--prompt-ids", self.model, "--format", "ids")
        self.refuse(2, "--format words", self.model, "--format", "words")
        self.refuse(2, ["one rank", "started 2"], self.model, launcher=[trivet.MPIEXEC, "-n", "2"])
        broken = trivet.new_folder()
        tensors = trivet.read_safetensors(self.model / "model.safetensors")
        tensors["model.norm.weight"][1][3] = math.nan
        trivet.write_safetensors(broken / "model.safetensors", tensors)
        (broken / "config.json").write_text((self.model / "config.json").read_text())
        process = sample(broken, "--json")
        self.assertEqual(process.returncode, 4)
        self.assertIn(b"is not a number", process.stderr)


if __name__ == "__main__":
    unittest.main()
