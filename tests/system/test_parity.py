"""Whole runs through the command line: the same training on every mesh, and what other trainers got wrong there.

Names of tests carry the rows of the project's list of public faults (docs/faults.md)."""
import math
import unittest

import trivet
from trivet import relative, train


class Parity(trivet.Training):
    def test_b06_fewer_kv_heads_than_tensor_ranks(self):
        self.check_mesh(tp=2, num_query_groups=1)
        self.check_mesh(tp=4, num_query_groups=2)
        self.check_mesh(tp=4, pp=2, num_query_groups=1)

    def test_b05_sequence_parallelism(self):
        self.check_mesh(tp=2, sequence_parallel=True)
        self.check_mesh(tp=4, pp=2, micro_batch_size=2, recompute="selective", sequence_parallel=True)
        self.check_mesh(tp=2, pp=2, dp=2, schedule="zb-h1", recompute="full", sequence_parallel=True)
        gpt2 = {"model": "gpt2", "untie_embeddings_and_output_weights": None}
        self.check_mesh(tp=2, pp=2, schedule="interleaved", vpp=2, sequence_parallel=True, **gpt2)
        self.check_mesh(tp=2, num_query_groups=1, sequence_parallel=True)

    def test_b35_dropout_is_the_same_on_every_mesh(self):
        flags = {"model": "gpt2", "untie_embeddings_and_output_weights": None, "dropout": 0.1, "label_smoothing": 0.1}
        want = self.reference(**flags)
        self.assertGreater(relative(want.steps[0]["loss"], self.reference().steps[0]["loss"]), 1e-4)
        for recompute in ("selective", "full"):
            self.assertEqual(train(self.data, recompute=recompute, **flags).losses(), want.losses())
        for mesh in ({"tp": 2, "pp": 2}, {"tp": 2, "pp": 2, "sequence_parallel": True}):
            runs = [train(self.data, recompute=recompute, **mesh, **flags) for recompute in ("none", "selective", "full")]
            for run in runs[1:]:
                self.assertEqual(run.losses(), runs[0].losses())
        self.check_mesh(tp=2, sequence_parallel=True, recompute="full", **flags)
        self.check_mesh(pp=2, dp=2, tp=2, micro_batch_size=2, schedule="zb-h1", **flags)
        self.check_mesh(pp=4, micro_batch_size=4, schedule="gpipe", **flags)

    def test_b35_evaluation_has_no_dropout(self):
        flags = {"valid_data": self.data, "lr": 0, "min_lr": 0, "train_iters": 1}
        plain, dropped = train(self.data, **flags), train(self.data, dropout=0.5, label_smoothing=0.2, **flags)
        self.assertEqual(plain.evals, dropped.evals)
        self.assertNotEqual(plain.losses(), dropped.losses())

    def test_b07_gradients_do_not_grow_with_the_pipeline(self):
        for schedule in ("gpipe", "1f1b"):
            self.check_mesh(pp=2, schedule=schedule)
            self.check_mesh(pp=2, schedule=schedule, clip_grad=0.1)

    def test_tied_embeddings_over_two_stages(self):
        tied = {"untie_embeddings_and_output_weights": None}
        self.check_mesh(pp=2, dp=2, tp=2, **tied)
        self.check_mesh(pp=4, dp=2, model="gpt2", **tied)

    def test_one_stage_gives_the_same_bits_under_every_schedule(self):
        tied = {"untie_embeddings_and_output_weights": None}
        a = train(self.data, schedule="gpipe", **tied)
        b = train(self.data, schedule="1f1b", **tied)
        self.assertEqual(a.losses(), b.losses())
        self.assertEqual(a.norms(), b.norms())

    def test_threads_and_processes_give_the_same_bits(self):
        a = train(self.data, pp=2, dp=2, tp=2)
        b = train(self.data, pp=2, dp=2, tp=2, mpi=True)
        self.assertEqual(a.losses(), b.losses())
        self.assertEqual(a.norms(), b.norms())

    def test_a_placement_changes_no_bit(self):
        file = self.folder / "placement"
        file.write_text("# reversed\n" + "\n".join(str(r) for r in reversed(range(8))) + "\n")
        a = train(self.data, pp=2, dp=2, tp=2)
        b = train(self.data, pp=2, dp=2, tp=2, placement=file)
        self.assertEqual(a.losses(), b.losses())

    def test_b10_inputs_meet_their_own_targets(self):
        # Sequence i is token i repeated; with lr 0 the loss of a batch is the mean of the losses of its sequences.
        data = trivet.write_tokens(self.folder / "constant.u16", [i for i in range(16) for _ in range(32)] + [15])
        single = train(data, lr=0, global_batch_size=1, train_iters=16, shuffle="off").losses()
        for pp in (2, 4):
            batch = train(data, pp=pp, lr=0, global_batch_size=8, train_iters=2, shuffle="off").losses()
            self.assertLess(relative(batch[0], math.fsum(single[:8]) / 8), 2e-6)
            self.assertLess(relative(batch[1], math.fsum(single[8:]) / 8), 2e-6)

    def test_b14_loss_is_a_mean_over_counted_tokens(self):
        # Sequence A has 1 counted target, sequence B has 31: token 9 is not counted.
        a = [1] + [9] * 30 + [2] + [9]
        b = [5 if i % 2 else 6 for i in range(31)] + [9]
        data = trivet.write_tokens(self.folder / "masked.u16", a[:32] + b + [9])
        runs = [train(data, shuffle="off", mask_token=9, global_batch_size=2, train_iters=1, **how)
                for how in ({"micro_batch_size": 2}, {}, {"dp": 2}, {"pp": 2})]
        counted = runs[0].steps[0]["counted_tokens"]
        self.assertEqual(counted, sum(t != 9 for t in (a[:32] + b + [9])[1:]))
        for run in runs[1:]:
            self.assert_same(run, runs[0])

    def test_b17_evaluation_counts_each_sequence_once(self):
        valid = trivet.write_tokens(self.folder / "valid.u16", trivet.walk_tokens(10 * 32 + 1, seed=7))
        results = {}
        for dp in (1, 2, 4):
            run = train(self.data, dp=dp, micro_batch_size=2, valid_data=valid, eval_interval=5, lr=0)
            self.assertEqual([e["step"] for e in run.evals], [5, 10])
            self.assertEqual([e["counted_tokens"] for e in run.evals], [320, 320])
            results[dp] = run.evals[1]["loss"]
        pipeline = train(self.data, pp=4, tp=2, micro_batch_size=4, valid_data=valid, lr=0)
        results["pipeline"] = pipeline.evals[-1]["loss"]
        for loss in results.values():
            self.assertLess(relative(loss, results[1]), 1e-6)

    def test_evaluation_changes_no_training_bit(self):
        valid = trivet.write_tokens(self.folder / "valid2.u16", trivet.walk_tokens(7 * 32 + 1, seed=7))
        a = train(self.data, pp=2, dp=2)
        b = train(self.data, pp=2, dp=2, valid_data=valid, eval_interval=1)
        self.assertEqual(a.losses(), b.losses())

    def test_b37_initial_weights_do_not_depend_on_the_mesh(self):
        def initial(**mesh):
            return self.train_and_export(lr=0, train_iters=1, **mesh).export

        first = initial()
        for mesh in ({"dp": 2}, {"tp": 4}, {"pp": 4}, {"pp": 2, "dp": 2, "tp": 2}):
            self.assertEqual(initial(**mesh).read_bytes(), first.read_bytes(), mesh)
        self.assertNotEqual(initial(seed=99).read_bytes(), first.read_bytes())
        queries = [values.tobytes() for name, (_, values) in trivet.read_safetensors(first).items()
                   if name.endswith("q_proj.weight")]
        self.assertEqual(len(queries), 4)
        self.assertEqual(len(set(queries)), len(queries))

    def test_b40_whole_steps_per_pass(self):
        import json
        for tokens, dp, micro, seq, steps in ((94, 2, 1, 5, 9), (100, 4, 2, 8, 1)):
            data = trivet.write_tokens(self.folder / f"n{tokens}.u16", trivet.walk_tokens(tokens))
            log = self.folder / f"ids{tokens}"
            train(data, dp=dp, micro_batch_size=micro, global_batch_size=dp * micro, seq_length=seq, shuffle="off",
                  train_iters=2 * steps + 2, log_sample_ids=log)
            ids = [i for line in log.read_text().splitlines() for i in json.loads(line)["samples"]]
            samples = (tokens - 1) // seq
            self.assertEqual((tokens - 1) // (dp * micro * seq), steps)
            self.assertEqual(ids, [i % samples for i in range(len(ids))])

    def test_b41_far_past_the_end_of_a_small_file(self):
        data = trivet.write_tokens(self.folder / "one.u16", trivet.walk_tokens(33))
        run = train(data, dp=2, global_batch_size=4, train_iters=5)
        self.assertEqual(run.steps[-1]["consumed_samples"], 20)

    def test_b04_b24_a_zero_head_gives_the_logarithm_of_the_true_vocabulary(self):
        for vocabulary, loss in ((256, 5.545177), (97, 4.574711)):
            data = trivet.write_tokens(self.folder / f"v{vocabulary}.u16", trivet.walk_tokens(2000, vocabulary))
            initial = self.train_and_export(data=data, lr=0, train_iters=1, vocab_size=vocabulary)
            tensors = trivet.read_safetensors(initial.export)
            shape, values = tensors["lm_head.weight"]
            self.assertEqual(shape[0], vocabulary)
            for i in range(len(values)):
                values[i] = 0
            zero = self.folder / f"zero{vocabulary}.safetensors"
            trivet.write_safetensors(zero, tensors)
            for tp in (1, 2, 4):
                run = train(data, tp=tp, lr=0, train_iters=1, vocab_size=vocabulary, init_from=zero)
                self.assertAlmostEqual(run.losses()[0], loss, places=5)

    def test_threads_same_count_same_bits_other_counts_within_rounding(self):
        for model in ("gpt2", "llama"):
            changes = {"model": model, "micro_batch_size": 8, "train_iters": 4, "clip_grad": 1.0,
                       "untie_embeddings_and_output_weights": model == "llama" or None}
            runs = {}
            for threads in (1, 2, 3):
                first, second = (self.train_and_export(threads=threads, **changes) for _ in range(2))
                with self.subTest(model=model, threads=threads):
                    self.assert_same_bits(second, first)
                runs[threads] = first
            for threads in (2, 3):
                with self.subTest(model=model, threads=(1, threads)):
                    for a, b in zip(runs[threads].steps, runs[1].steps, strict=True):
                        self.assertLess(relative(a["loss"], b["loss"]), 1e-6)
                        self.assertLess(relative(a["grad_norm"], b["grad_norm"]), 2e-5)
                    weights = [trivet.read_safetensors(runs[n].export) for n in (1, threads)]
                    self.assertLess(trivet.worst_difference(*weights), 1e-5)

    def test_same_mesh_twice_gives_the_same_bits(self):
        runs = [train(self.data, pp=2, dp=2, tp=2, train_iters=4) for _ in range(5)]
        for run in runs[1:]:
            self.assertEqual(run.losses(), runs[0].losses())
            self.assertEqual(run.norms(), runs[0].norms())


if __name__ == "__main__":
    unittest.main(verbosity=2)
