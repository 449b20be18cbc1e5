"""--precision bf16: the training of fp32 within bf16's noise on every mesh and in every way to train, in the bytes that
the dry run says, the same bits twice (rows B09, B12, B18, B60; Model-Optimizer#2322)."""
import unittest

import trivet
from trivet import TINY, plan, read_safetensors, relative, stage_memory, train

TIED = {"untie_embeddings_and_output_weights": None}
GPT2 = dict(TIED, model="gpt2")
MESHES = [
    dict(), dict(pp=2, **GPT2), dict(tp=2, num_query_groups=1), dict(dp=2, zero_stage=1, **TIED),
    dict(tp=2, dp=2, sequence_parallel=True, zero_stage=2, recompute="selective", **GPT2),
    dict(pp=2, tp=2, sequence_parallel=True, recompute="full", schedule="zb-h1", micro_batch_size=2),
    dict(pp=2, dp=2, zero_stage=3, schedule="interleaved", vpp=2, recompute="full", **TIED),
    dict(pp=2, dp=2, zero_stage=3, schedule="dualpipe-v", grad_reduce_dtype="bf16", **GPT2),
]


class Precision(trivet.Training):
    model = TINY

    def check_close(self, got, want):
        for a, b in zip(got.steps, want.steps, strict=True):
            self.assertLess(relative(a["loss"], b["loss"]), 1e-2)
            self.assertLess(relative(a["grad_norm"], b["grad_norm"]), 3e-2)
            self.assertEqual(a["counted_tokens"], b["counted_tokens"])

    def test_every_mesh_is_the_training_of_fp32_in_the_bytes_that_were_predicted(self):
        for mesh in MESHES:
            with self.subTest(**mesh):
                flags = dict(TINY, precision="bf16", **mesh)
                got, dry = self.train(valid_data=self.data, eval_interval=5, **flags), plan(**flags)
                how = {name: value for name, value in mesh.items() if name in ("model", *TIED, "num_query_groups")}
                want = self.train(valid_data=self.data, eval_interval=5, **how)
                self.check_close(got, want)
                self.assertNotEqual(got.losses(), want.losses())
                for a, b in zip(got.evals, want.evals, strict=True):
                    self.assertLess(relative(a["loss"], b["loss"]), 1e-2)
                self.assertEqual(dry["sent_bytes"], got.steps[-1]["sent_bytes"])
                self.assertEqual(max(m["total"] for m in stage_memory(dry)), got.steps[0]["peak_memory_bytes"])

    def test_every_schedule_trains(self):
        want = self.train(train_iters=2)
        for schedule in trivet.SCHEDULES:
            with self.subTest(schedule=schedule):
                vpp = 2 if schedule in trivet.TWO_CHUNKS else None
                self.check_close(self.train(pp=2, schedule=schedule, vpp=vpp, precision="bf16", train_iters=2), want)

    def test_the_same_mesh_twice_gives_the_same_bits(self):
        flags = dict(dp=2, tp=2, precision="bf16", dropout=0.1, zero_stage=1, **GPT2)
        first = self.train_and_export(**flags)
        self.assert_same_bits(self.train_and_export(**flags), first)
        self.assert_same_bits(self.train_and_export(mpi=True, **flags), first)

    def test_recomputation_and_stages_of_zero_change_no_bit(self):
        first = self.train_and_export(dp=2, precision="bf16", dropout=0.1)
        for how in (dict(recompute="selective"), dict(recompute="full", schedule="gpipe")):
            self.assert_same_bits(self.train_and_export(dp=2, precision="bf16", dropout=0.1, **how), first)
        shared = self.train_and_export(dp=2, precision="bf16", dropout=0.1, zero_stage=1)  # squares in another order
        self.assertEqual(shared.losses(), first.losses())
        self.assertEqual(shared.export.read_bytes(), first.export.read_bytes())

    def test_gradients_in_bf16_are_another_choice_for_the_data_axis_alone(self):
        for one, two in (({"grad_reduce_dtype": "bf16"}, {"grad_reduce_in_bf16": True}),):
            self.assertEqual(self.train(dp=2, **one).losses(), self.train(dp=2, **two).losses())
        self.assertNotEqual(self.train(dp=2).norms(), self.train(dp=2, grad_reduce_in_bf16=True).norms())
        self.assertEqual(self.train(tp=2).norms(), self.train(tp=2, grad_reduce_in_bf16=True).norms())
        sent = [plan(dp=2, hidden_size=128, **how)["sent_bytes"]["data"] for how in ({}, {"grad_reduce_in_bf16": True})]
        self.assertEqual(sent[0], 2 * sent[1])

    def test_b12_one_norm_for_all_stages_which_stays_where_no_weight_moves(self):
        # One step reads the whole file, and no weight moves: 50 steps are one.
        data = trivet.write_tokens(self.folder / "once.u16", trivet.walk_tokens(16 * 16 + 1, seed=3))
        flags = dict(data=data, dp=4, lr=0, shuffle="off", num_layers=2, global_batch_size=16, train_iters=50)
        seen = set()
        for zero, group in ((0, None), (1, None), (1, 2), (2, None), (2, 2), (3, None), (3, 2)):
            run = self.train(precision="bf16", zero_stage=zero, zero_group_size=group, **flags)
            self.assertEqual(len(set(run.norms())), 1, (zero, group))
            seen.add(run.norms()[0])
        self.assertLess(relative(max(seen), min(seen)), 1e-6)
        exact = self.train(**flags).norms()[0]
        self.assertLess(relative(max(seen), exact), 3e-2)
        self.assertNotIn(exact, seen)

    def test_b60_masters_of_matrices_alone_decay(self):
        """Every target is masked, so that gradients are 0: with lr 0.1 and decay 0.1 a matrix keeps 0.99 of itself."""
        data = trivet.write_tokens(self.folder / "same.u16", [7] * 4000)
        flags = dict(GPT2, data=data, mask_token=7, weight_decay=0.1, lr_decay_style="constant", precision="bf16",
                     global_batch_size=12)
        before = read_safetensors(self.train_and_export(lr=0, train_iters=1, **flags).export)
        save = trivet.new_folder()
        self.train(lr=0, train_iters=1, dp=2, zero_stage=1, save=save, **flags)
        meshes = [dict(tp=2, pp=2), dict(pp=2, dp=3, zero_stage=1), dict(tp=2, dp=2, zero_stage=2), dict(dp=3, zero_stage=3)]
        resumed = [dict(load=save, tp=2, zero_stage=0), dict(load=save, pp=2, dp=2, zero_stage=2)]
        for mesh in meshes + resumed:
            run = self.train_and_export(lr=0.1, train_iters=2 if "load" in mesh else 1, **mesh, **flags)
            self.assertEqual(len(run.steps), 1)
            for name, (shape, values) in read_safetensors(run.export).items():
                factor = 1 if len(shape) < 2 else 0.99
                for x, y in zip(values, before[name][1], strict=True):
                    self.assertLessEqual(abs(x - factor * y), abs(y) * 2**-23, (name, mesh))

    def test_small_updates_reach_the_weights(self):
        """Gains of norms begin at 1, where a step of lr 1e-5 is far below bf16's spacing; masters take it."""
        run = self.train_and_export(precision="bf16", lr=1e-5, lr_decay_style="constant", train_iters=20)
        weights = read_safetensors(run.export)
        gains = weights["model.norm.weight"][1]
        self.assertTrue(all(1e-5 < abs(gain - 1) < 3e-4 for gain in gains), gains)

    def test_runs_go_on_from_their_masters(self):
        """Saved and resumed, and exported and begun from again, where only masters are exact (B33)."""
        whole = self.train_and_export(precision="bf16", dp=2, zero_stage=1)
        save = trivet.new_folder()
        self.train(precision="bf16", dp=2, zero_stage=1, train_iters=2, lr_decay_iters=5, save=save)
        rest = self.train_and_export(precision="bf16", dp=2, zero_stage=1, load=save)
        self.assertEqual(rest.losses(), whole.losses()[2:])
        self.assertEqual(rest.export.read_bytes(), whole.export.read_bytes())

    def test_refusals(self):
        for flags, word in (({"precision": "fp16"}, "fp32, bf16"), ({"grad_reduce_dtype": "fp8"}, "fp32, bf16"),
                            ({"grad_reduce_in_bf16": True, "grad_reduce_dtype": "fp32"}, "--grad-reduce-in-bf16")):
            with self.assertRaisesRegex(AssertionError, f"exit 2(.|\n)*{word}"):
                train(self.data, **flags)


if __name__ == "__main__":
    unittest.main()
