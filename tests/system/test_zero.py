"""--zero-stage: every stage gives the training of one rank, in the memory that the dry run says (rows B01, B12, B60)."""
import itertools
import unittest

import trivet
from trivet import plan, relative, train

TIED = {"untie_embeddings_and_output_weights": None}
GPT2 = dict(TIED, model="gpt2")
# Odd numbers of replicas, tensor ranks beside them, chunks, a split backward, recomputation.
MESHES = [
    dict(dp=4, **GPT2), dict(dp=3, global_batch_size=12), dict(pp=2, dp=2, **TIED), dict(tp=2, dp=2, num_query_groups=1),
    dict(pp=2, tp=2, dp=2, sequence_parallel=True, recompute="selective", **GPT2),
    dict(pp=2, dp=2, schedule="zb-v", recompute="full", **GPT2), dict(pp=2, dp=2, schedule="zb-h1", **GPT2),
    dict(pp=2, dp=3, global_batch_size=12, schedule="interleaved", vpp=2, **TIED),
]
GROUPS = [
    dict(dp=4, zero_group_size=2, **GPT2), dict(dp=6, global_batch_size=12, zero_group_size=3, recompute="full"),
    dict(pp=2, dp=4, zero_group_size=2, schedule="zb-h1", **TIED),
    dict(pp=2, dp=4, zero_group_size=2, schedule="interleaved", vpp=2, no_overlap_grad_reduce=True, **GPT2),
    dict(tp=2, dp=4, zero_group_size=2, num_query_groups=1, sequence_parallel=True),
]


class Zero(trivet.Training):
    def test_every_stage_on_every_mesh_is_the_training_of_one_rank(self):
        for mesh in MESHES:
            for zero in (1, 2, 3):
                self.check_mesh(zero_stage=zero, **mesh)

    def test_groups_are_the_training_of_one_rank_in_the_bytes_that_were_predicted(self):
        for mesh in GROUPS:
            for zero in (1, 2, 3):
                self.check_mesh(zero_stage=zero, **mesh)
                flags = dict(mesh, zero_stage=zero, train_iters=1)
                dry, run = plan(**flags), train(self.data, **flags)
                self.assertEqual(dry["zero_group_size"], mesh["zero_group_size"])
                self.assertEqual(dry["sent_bytes"], run.steps[-1]["sent_bytes"])
                self.assertEqual(max(m["total"] for m in trivet.stage_memory(dry)),
                                 run.steps[-1]["peak_memory_bytes"], (mesh, zero))
                self.assertIn(f"ZeRO stage {zero} over groups of {mesh['zero_group_size']} of {mesh['dp']}", run.out)

    def test_groups_repeat_to_the_bit(self):
        for zero in (1, 2, 3):
            runs = [self.train_and_export(dp=4, zero_stage=zero, zero_group_size=2, mpi=mpi, **GPT2)
                    for mpi in (False, False, True)]
            for run in runs[1:]:
                self.assert_same_bits(run, runs[0])

    def test_memory_is_what_the_dry_run_says(self):
        for mesh in MESHES:
            totals = []
            for zero in range(4):
                flags = dict(mesh, zero_stage=zero, train_iters=1)
                totals.append(max(m["total"] for m in trivet.stage_memory(plan(**flags))))
                self.assertEqual(train(self.data, **flags).steps[-1]["peak_memory_bytes"], totals[-1], (mesh, zero))
            self.assertLess(totals[1], totals[0])

    def test_b12_stages_share_bits_where_the_order_of_sums_allows(self):
        for mesh in ({"dp": 3, "global_batch_size": 12}, dict(pp=2, dp=2, schedule="zb-h1", **GPT2)):
            runs = [self.train_and_export(zero_stage=zero, **mesh) for zero in range(4)]
            # 1: the same sums. The norm adds its squares shard by shard, so clipping could turn a last bit.
            self.assertEqual(runs[1].losses(), runs[0].losses())
            self.assertEqual(runs[1].export.read_bytes(), runs[0].export.read_bytes())
            self.assert_same_bits(runs[3], runs[2])
            for run in runs[1:]:
                for got, want in zip(run.norms(), runs[0].norms()):
                    self.assertLess(relative(got, want), 1e-6)
        # One micro-batch: from stage 2 on, too, replicas are all that is added.
        once = [self.train_and_export(dp=4, micro_batch_size=4, zero_stage=zero) for zero in range(4)]
        for run in once[1:]:
            self.assertEqual(run.losses(), once[0].losses())
            self.assertEqual(run.export.read_bytes(), once[0].export.read_bytes())

    def test_b12_the_norm_stays_where_no_weight_moves(self):
        # One step reads the whole file, and no weight moves: 50 steps are one.
        data = trivet.write_tokens(self.folder / "once.u16", trivet.walk_tokens(16 * 16 + 1, seed=3))
        seen = set()
        for zero in range(4):
            for group in (None, 2) if zero else (None,):
                run = self.train(data=data, dp=4, zero_stage=zero, zero_group_size=group, lr=0, shuffle="off",
                                 **dict(trivet.TINY, num_layers=2, global_batch_size=16, train_iters=50))
                self.assertEqual(len(set(run.norms())), 1)
                seen.add(run.norms()[0])
        self.assertLess(relative(max(seen), min(seen)), 1e-6)

    def test_one_norm_for_all_stages_when_it_clips(self):
        runs = [self.train(dp=4, clip_grad=0.1, zero_stage=zero) for zero in range(4)]
        for run in runs:
            self.assertGreater(min(run.norms()), 0.1)
            for got, want in zip(run.norms(), runs[0].norms()):
                self.assertLess(relative(got, want), 1e-6)

    def test_every_optimizer(self):
        for optimizer, lr, mesh in (("sgd", 0.1, {"pp": 2, "dp": 2}), ("muon", 1e-3, {"dp": 3, "global_batch_size": 12}),
                                    ("muon", 1e-3, {"tp": 2, "dp": 2}), ("lion", 1e-4, {"pp": 2, "dp": 2})):
            flags = dict(mesh, optimizer=optimizer, lr=lr, train_iters=4)
            want = self.train_and_export(**flags)
            for zero in (1, 2, 3):
                got = self.train_and_export(zero_stage=zero, **flags)
                self.assert_same(got, want)
                # a sign of Lion's that turns moves a weight by 2 lr
                apart = trivet.worst_difference(*(trivet.read_safetensors(run.export) for run in (got, want)))
                self.assertLess(apart, 1e-5 if optimizer != "lion" else 9e-4, (flags, zero))
                planned = max(m["total"] for m in trivet.stage_memory(plan(zero_stage=zero, **flags)))
                self.assertEqual(got.steps[-1]["peak_memory_bytes"], planned, (flags, zero))

    def test_b60_zero_gradients_leave_the_decay_of_matrices(self):
        # every target is masked: loss and gradients are 0
        data = trivet.write_tokens(self.folder / "same.u16", [7] * 4000)
        flags = dict(GPT2, data=data, mask_token=7, weight_decay=0.1, train_iters=1, lr_decay_style="constant")
        before = trivet.read_safetensors(self.train_and_export(lr=0, **flags).export)
        for zero, mesh in ((0, {"tp": 2, "pp": 2}), *itertools.product((1, 2, 3), ({"pp": 2, "dp": 3}, {"tp": 2, "dp": 2}))):
            run = self.train_and_export(global_batch_size=12, zero_stage=zero, lr=0.1, **mesh, **flags)
            for name, (shape, values) in trivet.read_safetensors(run.export).items():
                factor = 1 if len(shape) < 2 else 0.99
                for x, y in zip(values, before[name][1]):
                    self.assertLessEqual(abs(x - factor * y), abs(y) * 2**-23, name)

    def test_files_and_evaluation_do_not_know_of_shards(self):
        valid = trivet.write_tokens(self.folder / "valid.u16", trivet.walk_tokens(7 * 32 + 1, seed=7))
        start = self.train_and_export(train_iters=2, **GPT2).export
        flags = dict(GPT2, init_from=start, valid_data=valid, eval_interval=2, train_iters=4)
        want = self.train_and_export(**flags)
        still = self.train_and_export(dp=1, **dict(flags, lr=0, train_iters=1, eval_interval=None)).export.read_bytes()
        for zero in (1, 2, 3):
            for mpi in (False, True):
                got = self.train_and_export(pp=2, dp=2, zero_stage=zero, mpi=mpi, **flags)
                self.assert_same(got, want)
            kept = self.train_and_export(pp=2, dp=2, tp=2, zero_stage=zero,
                                         **dict(flags, lr=0, train_iters=1, eval_interval=None))
            self.assertEqual(kept.export.read_bytes(), still)

    def test_a_vocabulary_that_replicas_do_not_divide(self):
        data = trivet.write_tokens(self.folder / "large.u16", trivet.walk_tokens(4 * 8 * 2 + 1, vocabulary=50257))
        small = dict(data=data, vocab_size=50257, hidden_size=8, num_attention_heads=2, ffn_hidden_size=16, num_layers=1,
                     seq_length=8, global_batch_size=4, train_iters=2, **TIED)
        for zero in (1, 2, 3):
            self.check_mesh(dp=2, zero_stage=zero, **small)

    def test_gradients_are_dumped_whole(self):
        wanted = trivet.new_folder()
        self.train(dp=3, global_batch_size=12, train_iters=1, dump_grads=wanted, **GPT2)
        for zero in (1, 2, 3):
            got = trivet.new_folder()
            self.train(pp=2, dp=3, tp=2, global_batch_size=12, train_iters=1, zero_stage=zero, dump_grads=got, **GPT2)
            worst = trivet.worst_difference(*(trivet.read_safetensors(f / "model.safetensors") for f in (got, wanted)))
            self.assertLess(worst, 1e-7)

    def test_runs_repeat_to_the_bit(self):
        for zero in (1, 2, 3):
            runs = [self.train(pp=2, dp=3, global_batch_size=12, schedule="zb-h1", zero_stage=zero, mpi=mpi, **GPT2)
                    for mpi in (False, False, True)]
            for run in runs[1:]:
                self.assertEqual(run.losses(), runs[0].losses())
                self.assertEqual(run.norms(), runs[0].norms())

    def test_one_replica_accepts_the_flag(self):
        self.assertEqual(train(self.data, zero_stage=3).losses(), train(self.data).losses())

    def test_a_growing_batch(self):
        ramp = {"rampup_batch_size": "8,8,32", "dp": 4, "train_iters": 6}
        for zero in (1, 2, 3):
            self.assert_same(self.train(zero_stage=zero, **ramp), self.train(**ramp))

    def test_stage_4_is_refused(self):
        flags = dict(trivet.SMALL, data=self.data, **{"zero-stage": 4})
        refused = trivet.run(trivet.new_folder(), flags)
        self.assertEqual(refused.code, 2)
        self.assertIn("--zero-stage 4", refused.err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
