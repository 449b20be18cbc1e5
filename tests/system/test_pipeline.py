"""The same training under every schedule, whatever the micro-batches, chunks and splits.

Names of tests carry the rows of the project's list of public faults (docs/faults.md)."""
import unittest

import trivet
from trivet import ONE_CHUNK, SCHEDULES, TINY, TWO_CHUNKS, V_PLACEMENT

TIED = {"untie_embeddings_and_output_weights": None}
TIED_GPT2 = dict(TIED, model="gpt2")


class Pipeline(trivet.Training):
    model = TINY

    def test_b19_fewer_micro_batches_than_stages(self):
        for schedule in SCHEDULES:
            for num_micro in (1, 2, 3):
                self.check_mesh(pp=4, schedule=schedule, global_batch_size=num_micro)

    def test_b19_with_processes(self):
        for schedule in ("1f1b", "interleaved", "zb-v"):
            self.check_mesh(pp=4, mpi=True, schedule=schedule, global_batch_size=1)

    def test_b20_interleaved_with_any_number_of_micro_batches(self):
        for pp, counts in ((4, range(4, 11)), (2, range(2, 6))):
            for num_micro in counts:
                self.check_mesh(pp=pp, vpp=2, global_batch_size=num_micro)

    def test_b20_messages_of_64_bytes(self):
        smallest = {"hidden_size": 16, "seq_length": 1}  # 16 floats
        for pp, counts in ((4, range(4, 11)), (2, range(2, 6))):
            for num_micro in counts:
                self.check_mesh(pp=pp, vpp=2, global_batch_size=num_micro, **smallest)
        self.check_mesh(pp=2, vpp=2, global_batch_size=5, mpi=True, **smallest)

    def test_more_chunks_than_two(self):
        self.check_mesh(pp=2, vpp=3, global_batch_size=5)
        self.check_mesh(pp=2, vpp=4, global_batch_size=3)

    def test_b11_one_norm_for_all_stages(self):
        for how in ({}, {"vpp": 2}, {"pp": 2}, {"pp": 4}, {"pp": 2, "vpp": 2}, {"pp": 4, "vpp": 2}, {"schedule": "zb-v"},
                    {"pp": 2, "schedule": "zb-v"}, {"pp": 4, "schedule": "zb-v"}):
            self.check_mesh(clip_grad=0.1, train_iters=10, **how)
        self.assertGreater(min(self.reference(clip_grad=0.1, train_iters=10).norms()), 0.1)  # all are clipped

    def test_b16_labels_ignored_unevenly(self):
        # Of each three sequences one counts everything, one a third, one nothing but now and then a token.
        tokens = trivet.walk_tokens(16 * 400 + 1)
        for i in range(len(tokens)):
            sample = i // 16 % 3
            if (sample == 1 and i % 3 != 0) or (sample == 2 and i % 97 != 0):
                tokens[i] = 9
        data = trivet.write_tokens(self.folder / "ignored.u16", tokens)
        for schedule in ("1f1b", "zb-h1", "zb-h2", *V_PLACEMENT):
            self.check_mesh(pp=4, schedule=schedule, data=data, mask_token=9, clip_grad=1)
        counted = [step["counted_tokens"] for step in self.reference(data=data, mask_token=9, clip_grad=1).steps]
        self.assertGreater(len(set(counted)), 1)
        self.assertLess(max(counted), 8 * 16)

    def test_b08_micro_batches_of_any_size(self):
        for schedule in ("1f1b", "interleaved", "zb-h2", "zb-v"):
            for micro_batch in (1, 4, 16):
                self.check_mesh(pp=2, schedule=schedule, micro_batch_size=micro_batch, global_batch_size=16)

    def test_evaluations_between_steps_of_another_size(self):
        # Steps of 3 micro-batches of 2; evaluations of 1, 4 and 14, the last one with a row too many.
        for samples in (1, 7, 27):
            valid = trivet.write_tokens(self.folder / f"valid{samples}.u16", trivet.walk_tokens(samples * 16 + 1, seed=7))
            flags = {"global_batch_size": 6, "micro_batch_size": 2}
            evaluated = dict(flags, valid_data=valid, eval_interval=1)
            for schedule in ("1f1b", "interleaved", "zb-v", "dualpipe-v"):
                for pp in (2, 4):
                    self.check_mesh(pp=pp, schedule=schedule, **evaluated)
            self.assertEqual([e["counted_tokens"] for e in self.reference(**evaluated).evals], [samples * 16] * 5)

    def test_evaluation_changes_no_bit(self):
        valid = trivet.write_tokens(self.folder / "valid.u16", trivet.walk_tokens(11 * 16 + 1, seed=7))
        for schedule in SCHEDULES:
            how = {"pp": 2, "schedule": schedule}
            self.assert_same_bits(self.train_and_export(valid_data=valid, eval_interval=1, **how),
                                  self.train_and_export(**how))

    def test_same_mesh_twice_gives_the_same_bits(self):
        for schedule in SCHEDULES:
            with self.subTest(schedule=schedule):
                a = self.train_and_export(pp=2, schedule=schedule)
                b = self.train_and_export(pp=2, schedule=schedule)
                self.assert_same_bits(a, b)

    def test_threads_and_processes_give_the_same_bits(self):
        for schedule in ("1f1b", "interleaved", "zb-v", "dualpipe-v"):
            with self.subTest(schedule=schedule):
                how = {"pp": 2, "dp": 2, "schedule": schedule}
                self.assert_same_bits(self.train_and_export(mpi=True, **how), self.train_and_export(**how))

    def test_one_stage_gives_the_same_bits_under_every_schedule(self):
        want = self.train_and_export(schedule="1f1b", **TIED)
        for schedule in SCHEDULES:
            with self.subTest(schedule=schedule):
                self.assert_same_bits(self.train_and_export(schedule=schedule, **TIED), want)

    def test_b21_one_chunk_is_plain_1f1b(self):
        self.assert_same_bits(self.train_and_export(pp=4, vpp=1), self.train_and_export(pp=4, schedule="1f1b"))

    def test_every_schedule_with_replicas_tensor_ranks_and_recomputation(self):
        for i, schedule in enumerate(SCHEDULES):
            recompute = ("selective", "full")[i % 2]
            self.check_mesh(pp=2, dp=2, tp=2, schedule=schedule, recompute=recompute, num_query_groups=1)

    def test_tied_embeddings(self):
        for schedule in ONE_CHUNK + ["interleaved"]:
            self.check_mesh(pp=2, schedule=schedule, **TIED_GPT2)

    def test_tied_embeddings_on_one_stage(self):
        for schedule in V_PLACEMENT:
            for mesh in ({"pp": 2}, {"pp": 4}, {"pp": 2, "dp": 2}):
                self.check_mesh(schedule=schedule, **mesh, **TIED_GPT2)
            chunks = trivet.plan(pp=4, schedule=schedule, **TINY, **TIED_GPT2)["stages"]
            self.assertEqual([c["stage"] for c in chunks if c["embedding"] or c["head"]], [0, 0])
        self.check_mesh(pp=2, schedule="zb-v", **TIED)

    def test_splits_that_are_not_uniform(self):
        for how in ({"pp": 4, "partition": "params"}, {"pp": 4, "partition": "flops"}, {"pp": 2, "partition": "profile"},
                    {"pp": 3, "vpp": 2, "partition": "params"}, {"pp": 4, "schedule": "zb-v", "partition": "flops"},
                    {"pp": 2, "schedule": "v-half", "partition": "profile"}):
            self.check_mesh(**how)

    def test_layouts(self):
        for layout, how in (("E|t|(tt|)*3tL", {"pp": 6}), ("Ett | t, tt | t | t t L", {"pp": 4}), ("E|t*4|t*4|L", {"pp": 4}),
                            ("E|t*4|t*4|L", {"pp": 2, "schedule": "zb-v"}), ("E|t*3|tt|tt|t|L", {"pp": 3, "vpp": 2})):
            self.check_mesh(stage_layout=layout, **how)

    def test_one_unit_on_every_position(self):
        for schedule in TWO_CHUNKS:  # embedding, two layers, head
            self.check_mesh(pp=2, schedule=schedule, num_layers=2, partition="params", **TIED)


if __name__ == "__main__":
    unittest.main(verbosity=2)
