"""Bytes sent, time exposed and memory held: in the metrics, the summary and the dry run, and the same in all three."""
import unittest

import trivet

ACCOUNTS = ["pipe", "data", "tensor", "tied", "world"]
KINDS = ["parameters", "gradients", "optimizer", "activations", "buffers"]
MESH = {"pp": 2, "dp": 2, "tp": 2}
TIED = {"untie_embeddings_and_output_weights": None}


class Accounting(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.data = trivet.write_tokens(trivet.new_folder() / "walk.u16", trivet.walk_tokens(16 * 32 * 12 + 1))

    def check(self, dp=1, mpi=False, **flags):
        """A run whose metrics, summary and dry run agree to the byte."""
        with self.subTest(dp=dp, mpi=mpi, **flags):
            flags = dict(trivet.TINY, global_batch_size=8, train_iters=3) | flags
            result = trivet.train(self.data, dp=dp, mpi=mpi, **flags)
            dry = trivet.plan(dp=dp, **flags)
            sent = result.pipeline["sent_bytes"]
            for step in result.steps:
                self.assertEqual(step["sent_bytes"], dry["sent_bytes"])
                self.assertEqual(step["largest_sent_bytes"], sent["predicted"]["largest"])
            self.assertEqual(sent["measured"]["sum"], dry["sent_bytes"])
            self.assertEqual(sent["measured"]["largest"], sent["predicted"]["largest"])
            self.assertEqual(sent["predicted"]["sum"], dry["sent_bytes"])
            stages = [chunk["sent_bytes_per_rank"] for chunk in dry["stages"] if chunk["chunk"] == 0]
            self.assertEqual({a: max(stage[a] for stage in stages) for a in ACCOUNTS}, sent["predicted"]["largest"])
            memory = [{kind: stage[kind] for kind in KINDS} for stage in trivet.stage_memory(dry)]
            self.assertEqual([stage["measured"] for stage in result.pipeline["memory_bytes"]], memory)
            self.assertEqual([stage["predicted"] for stage in result.pipeline["memory_bytes"]], memory)
            return result

    def test_meshes(self):
        for mesh in ({"pp": 2}, {"dp": 2}, {"tp": 2}, MESH, {"pp": 4, "vpp": 2}):
            self.check(**mesh, **TIED)
            self.check(**mesh, **TIED, model="gpt2", mpi=True)

    def test_schedules_recomputation_and_sequence_parallelism(self):
        for i, schedule in enumerate(trivet.SCHEDULES):
            recompute = ("none", "selective", "full")[i % 3]
            self.check(pp=2, tp=2, schedule=schedule, recompute=recompute, num_query_groups=1)
            self.check(pp=2, tp=2, schedule=schedule, recompute=recompute, sequence_parallel=True, label_smoothing=0.1)

    def test_what_crosses_an_axis_of_one_is_nothing(self):
        for axis in ("pp", "dp", "tp"):
            mesh = dict(MESH, **{axis: 1})
            name = {"pp": "pipe", "dp": "data", "tp": "tensor"}[axis]
            last = self.check(**mesh, **TIED, model="gpt2").steps[-1]
            none = {name, "tied"} if axis == "pp" else {name}
            self.assertEqual({a for a in ACCOUNTS if last["sent_bytes"][a] == 0}, none)
            self.assertEqual({a for a in ACCOUNTS if last["exposed_seconds"][a] == 0}, none)
        alone = self.check()
        for step in alone.steps:
            self.assertEqual(set(step["sent_bytes"].values()), {0})
            self.assertEqual(set(step["exposed_seconds"].values()), {0})

    def test_exposed_time_is_a_part_of_the_step(self):
        result = self.check(**MESH, mpi=True)
        for step in result.steps:
            self.assertLess(sum(step["exposed_seconds"].values()), step["step_seconds"])
        mean = {a: sum(step["exposed_seconds"][a] for step in result.steps) / len(result.steps) for a in ACCOUNTS}
        for account in ACCOUNTS:
            self.assertLess(trivet.relative(result.pipeline["exposed_seconds"][account], mean[account]), 1e-9)

    def test_one_machine_is_one_node(self):
        pipeline = self.check(**MESH, mpi=True).pipeline
        predicted = pipeline["sent_bytes"]["predicted"]
        self.assertEqual(pipeline["nodes"], 1)
        self.assertEqual(set(predicted["between_nodes"].values()), {0})
        self.assertEqual(predicted["within_nodes"], predicted["sum"])

    def test_memory_does_not_grow(self):
        for flags in ({"schedule": "zb-v", "recompute": "selective"}, {"schedule": "1f1b", "optimizer": "muon"}):
            result = trivet.train(self.data, pp=2, tp=2, **dict(trivet.TINY, **flags, train_iters=300))
            self.assertEqual(len(result.steps), 300)
            for step in result.steps[2:]:
                for name in ("memory_bytes", "peak_memory_bytes", "sent_bytes"):
                    self.assertEqual(step[name], result.steps[1][name], f"step {step['step']}")

    def test_tables_are_at_most_100_columns(self):
        flags = trivet.small_flags(dict(MESH, model="gpt2", **TIED))
        flags["data"] = self.data
        del flags["dp"]
        trained = trivet.run(trivet.new_folder(), flags, ranks=8)
        self.assertEqual(trained.code, 0, trained.err)
        planned = trivet.run(trivet.new_folder(), dict(flags, **{"dry-run": True}))
        for text, names in ((trained.out, ACCOUNTS), (planned.out, ["sent in a step"])):
            for line in text.splitlines():
                self.assertLessEqual(len(line), 100)
            for name in names:
                self.assertIn(f"\n{name}", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
