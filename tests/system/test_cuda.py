"""--device cuda on the emulated runtime (LD_LIBRARY_PATH=build/emulation): every way to train, save and measure is that of
the CPU, and nothing above the device's tables touches its memory, which would end the run."""
import json
import subprocess
import unittest

import trivet
from trivet import new_folder, read_safetensors, worst_difference

MODEL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 64, "seq_length": 16,
         "global_batch_size": 4, "micro_batch_size": 2, "train_iters": 3, "vocab_size": 96}
GPT2 = {"model": "gpt2", "untie_embeddings_and_output_weights": None}


class Cuda(trivet.Training):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = trivet.write_tokens(cls.folder / "small.u16", trivet.walk_tokens(4 * 16 * 6 + 1, 96))
        cls.model = dict(MODEL, data=cls.data, precision="fp32")

    def check(self, how=None, **changes):
        """On the GPU, `how` besides, what one rank of the CPU trains."""
        with self.subTest(**changes, **(how or {})):
            want = self.reference(**changes)
            got = self.train_and_export(device="cuda", **changes, **(how or {}))
            self.assert_same(got, want)
            self.assertLess(worst_difference(read_safetensors(got.export), want.weights), 1e-4)

    def test_every_rule_of_updates(self):
        for optimizer in ("sgd", "lion", "muon"):
            self.check(optimizer=optimizer, lr=1e-3 if optimizer != "lion" else 1e-4)
        self.check(how=dict(tp=2), optimizer="muon")

    def test_dropout_smoothing_documents_and_evaluation(self):
        self.check(dropout=0.1, label_smoothing=0.1, valid_data=self.data, eval_interval=2, **GPT2)
        self.check(how=dict(pp=2, recompute="selective"), eod_token=3, reset_position_ids=True, reset_attention_mask=True,
                   eod_mask_loss=True)

    def test_a_vocabulary_that_is_padded_to_whole_lines(self):
        self.check(vocab_size=4100, **GPT2)

    def test_processes_give_the_bits_of_threads(self):
        flags = dict(device="cuda", tp=2, dp=2, zero_stage=3, sequence_parallel=True)
        self.assert_same_bits(self.train_and_export(mpi=True, **flags), self.train_and_export(**flags))

    def test_bf16_is_the_default_and_gives_the_same_bits_twice(self):
        flags = dict(device="cuda", dp=2, zero_stage=1, precision=None)
        first = self.train_and_export(**flags)
        self.assertEqual(first.records[0]["precision"], "bf16")
        self.assertEqual(first.records[0]["device"], "cuda")
        self.assert_same_bits(self.train_and_export(**flags), first)

    def test_a_checkpoint_goes_on_with_the_same_bits_and_on_a_cpu(self):
        whole = self.train_and_export(device="cuda")
        for how in (dict(save_async=True), dict(dp=2, zero_stage=2)):
            save = new_folder()
            self.train(device="cuda", save=save, train_iters=2, lr_decay_iters=3, **how)
            rest = self.train_and_export(device="cuda", load=save)
            if "dp" not in how:
                self.assertEqual(rest.losses(), whole.losses()[2:])
                self.assertEqual(rest.export.read_bytes(), whole.export.read_bytes())
            cpu = self.train_and_export(load=save)
            difference = worst_difference(read_safetensors(cpu.export), read_safetensors(whole.export))
            self.assertLess(difference, 1e-4)

    def test_units_are_timed_and_sample_numbers_written(self):
        ids = new_folder() / "ids.jsonl"
        run = self.train(device="cuda", pp=2, partition="profile", log_sample_ids=ids, train_iters=2)
        self.assertEqual(len(run.steps), 2)
        lines = [json.loads(line) for line in ids.read_text().splitlines()]
        self.assertEqual([len(line["samples"]) for line in lines], [4, 4])

    def test_bench_times_steps_as_they_are_and_then_their_kernels(self):
        flags = ["--num-layers", "1", "--hidden-size", "32", "--num-attention-heads", "2", "--vocab-size", "64",
                 "--seq-length", "16", "--steps", "2", "--seconds", "0.01", "--matrix-size", "64", "--memory-size", "1"]
        ran = subprocess.run([trivet.BINARY, "bench", "step", "--device", "cuda", "--json"] + flags, capture_output=True,
                             text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        found = json.loads(ran.stdout)
        [steps] = found["ranks"]
        for step in steps:
            self.assertNotEqual(step["alone"], step["seconds"])
            self.assertAlmostEqual(sum(step["parts"]), step["seconds"], delta=1e-9)
        self.assertEqual(found["step_seconds"]["high"], max(step["alone"] for step in steps))
        self.assertEqual(found["timed_step_seconds"]["high"], max(step["seconds"] for step in steps))
        calls = {kernel["name"]: kernel["calls"] for kernel in found["kernels"]}
        self.assertEqual(calls["attention_forward"], 2)  # of the two steps whose kernels are timed

    def test_what_is_refused(self):
        data = {"data": self.data, "train-iters": 1}
        for flags, words in (({"device": "gpu"}, ["--device gpu", "auto, cpu, cuda"]),
                             ({"device": "cpu", "precision": "tf32"}, ["tf32", "fp32, bf16"]),
                             ({"device": "cuda", "precision": "fp8"}, ["fp8", "fp32, bf16, tf32"])):
            command = trivet.command(dict(trivet.small_flags(MODEL), **data, **flags))
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
            trivet.assert_refused(self, ended, 2, words)


if __name__ == "__main__":
    unittest.main()
