"""Optimizers, learning rates, bad steps and growing batches through the command line (rows B18, B31, B60)."""
import json
import math
import tempfile
import unittest
from array import array
from pathlib import Path

import trivet

STEPS, BATCH, SEQ = 8, 4, 32
MESHES = ({"tp": 2}, {"pp": 2}, {"dp": 2}, {"pp": 2, "tp": 2})


def temporary():
    return Path(tempfile.mkdtemp(prefix="trivet-optimizers-"))


def weights_of(folder):
    return trivet.read_safetensors(folder / "model.safetensors")


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.data = trivet.write_tokens(temporary() / "walk.u16", trivet.walk_tokens(9000))

    def train(self, data=None, **flags):
        """(result, final weights)"""
        folder = temporary() / "export"
        result = trivet.train(data or self.data, export_hf=folder, **flags)
        return result, weights_of(folder)


class Optimizers(Base):
    def check_meshes(self, most_apart, **flags):
        """Every mesh gives the losses and weights of one rank, but for a share `most_apart` of them."""
        one, weights = self.train(**flags)
        self.assertLess(one.losses()[-1], one.losses()[0] - 0.02, flags)
        for mesh in MESHES:
            with self.subTest(mesh=mesh, **flags):
                got, theirs = self.train(**mesh, **flags)
                for a, b in zip(got.losses(), one.losses()):
                    self.assertLess(trivet.relative(a, b), 2e-6)
                for a, b in zip(got.norms(), one.norms()):
                    self.assertLess(trivet.relative(a, b), 2e-5)
                apart = total = 0
                for name, (_, values) in weights.items():
                    total += len(values)
                    apart += sum(abs(x - y) > 1e-4 for x, y in zip(values, theirs[name][1]))
                self.assertLessEqual(apart, most_apart * total)
        return weights

    def test_every_mesh_gives_the_training_of_one_rank(self):
        gpt2 = {"model": "gpt2", "untie_embeddings_and_output_weights": None, "clip_grad": 1}
        ends = []
        for optimizer, lr in (("adam", 1e-3), ("sgd", 0.1), ("muon", 1e-3)):
            ends.append(self.check_meshes(0, optimizer=optimizer, lr=lr))
            self.check_meshes(0, optimizer=optimizer, lr=lr, **gpt2)
        # A sign of nearly nothing may turn: gradients of key biases are rounding errors.
        ends.append(self.check_meshes(1e-3, optimizer="lion", lr=1e-4))
        self.check_meshes(1e-2, optimizer="lion", lr=1e-4, **gpt2)
        for i, a in enumerate(ends):
            for b in ends[:i]:
                self.assertGreater(trivet.worst_difference(a, b), 1e-4)

    def test_replicated_key_value_heads(self):
        flags = {"optimizer": "muon", "num_query_groups": 2, "train_iters": 4}
        one, weights = self.train(**flags)
        got, theirs = self.train(tp=4, **flags)
        self.assertLess(max(trivet.relative(a, b) for a, b in zip(got.losses(), one.losses())), 2e-6)
        self.assertLess(trivet.worst_difference(weights, theirs), 1e-5)

    def test_adam_is_the_default(self):
        _, default = self.train(train_iters=2)
        _, named = self.train(train_iters=2, optimizer="adam")
        self.assertEqual(trivet.worst_difference(default, named), 0)

    def test_memory_is_what_the_dry_run_says(self):
        totals = {}
        for optimizer in ("adam", "sgd", "lion", "muon"):
            for mesh in ({"tp": 1, "pp": 1}, {"tp": 2, "pp": 2}):
                flags = dict(trivet.SMALL, data=self.data, optimizer=optimizer, **mesh)
                plan = json.loads(trivet.run(temporary(), dict(flags, **{"dry-run": True, "json": True})).out)
                want = max(stage["memory_bytes_per_rank"]["total"] for stage in plan["stages"])
                real = trivet.train(self.data, optimizer=optimizer, train_iters=2, **mesh)
                self.assertEqual(real.steps[-1]["peak_memory_bytes"], want, flags)
                totals[optimizer] = plan["stages"][0]["memory_bytes_per_rank"]
        for optimizer in ("sgd", "lion"):
            self.assertEqual(2 * totals[optimizer]["optimizer"], totals["adam"]["optimizer"])

    def test_b60_zero_gradients_leave_the_decay_of_matrices(self):
        # every target is masked: loss and gradients are 0
        data = trivet.write_tokens(temporary() / "same.u16", [7] * 4000)
        flags = {"mask_token": 7, "weight_decay": 0.1, "train_iters": 1, "model": "gpt2", "lr_decay_style": "constant",
                 "untie_embeddings_and_output_weights": None}
        _, before = self.train(data, lr=0, **flags)
        for optimizer in ("adam", "sgd", "lion", "muon"):
            for mesh in ({}, {"tp": 2}, {"pp": 2}):
                _, after = self.train(data, lr=0.1, optimizer=optimizer, **mesh, **flags)
                for name, (shape, values) in before.items():
                    got = after[name][1]
                    if len(shape) < 2:
                        self.assertEqual(got, values, name)
                        continue
                    want = array("f", [x - 0.1 * 0.1 * x for x in values])
                    for x, y in zip(got, want):
                        self.assertLessEqual(abs(x - y), abs(y) * 2**-23, name)


class LearningRates(Base):
    def rates(self, **flags):
        return [s["lr"] for s in trivet.train(self.data, **flags).steps]

    def test_b31_edges_through_the_command_line(self):
        for style in ("cosine", "linear", "constant", "inverse-square-root", "WSD"):
            wsd = {"lr_wsd_decay_iters": 3} if style == "WSD" else {}
            for warmup, decay in ((0, 2), (4, 4), (5, 4), (3, 4), (1, 1)):
                rates = self.rates(lr=1e-3, min_lr=1e-4, lr_decay_style=style, lr_warmup_iters=warmup, train_iters=6,
                                   lr_decay_iters=decay, global_batch_size=1, **wsd)
                self.assertEqual(len(rates), 6)
                for k, rate in enumerate(rates, 1):
                    self.assertTrue(0 < rate <= 1e-3, (style, warmup, decay, rates))
                    self.assertTrue(k <= warmup or rate >= 1e-4, (style, warmup, decay, rates))
                if warmup:
                    self.assertAlmostEqual(rates[0], 1e-3 / warmup, delta=1e-18)
                    self.assertEqual(rates[warmup - 1], 1e-3)

    def test_warm_up_stable_decay(self):
        rates = self.rates(lr=1e-3, min_lr=1e-4, lr_decay_style="WSD", lr_wsd_decay_iters=4, lr_wsd_decay_style="linear",
                           lr_warmup_fraction=0.2, train_iters=10, global_batch_size=1, lr_warmup_init=2e-4)
        want = [6e-4, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 7.75e-4, 5.5e-4, 3.25e-4, 1e-4]
        for a, b in zip(rates, want):
            self.assertAlmostEqual(a, b, delta=1e-15)

    def test_decoupled_rate_is_that_of_the_vocabulary(self):
        flags = {"train_iters": 2, "weight_decay": 0, "lr_decay_style": "constant"}
        _, start = self.train(lr=0, **flags)
        for mesh in ({}, {"tp": 2}, {"pp": 2}):
            _, still = self.train(decoupled_lr=0, lr=1e-3, **mesh, **flags)
            _, only = self.train(decoupled_lr=1e-3, lr=0, **mesh, **flags)
            for name in start:
                is_vocabulary = "embed_tokens" in name or "lm_head" in name
                self.assertEqual(still[name] == start[name], is_vocabulary, name)
                self.assertEqual(only[name] == start[name], not is_vocabulary, name)

    def test_b18_every_mesh_reports_the_same_numbers(self):
        want = trivet.train(self.data, train_iters=3, valid_data=self.data, eval_interval=2)
        got = trivet.train(self.data, pp=2, mpi=True, train_iters=3, valid_data=self.data, eval_interval=2)
        for a, b in zip(want.losses() + [e["loss"] for e in want.evals], got.losses() + [e["loss"] for e in got.evals]):
            self.assertLess(trivet.relative(b, a), 2e-6)


class BadSteps(Base):
    """A token whose embedding is infinite makes exactly the steps bad that read it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        tokens = trivet.walk_tokens(STEPS * BATCH * SEQ + 1, vocabulary=250)
        for step in range(STEPS + 1):
            tokens[step * BATCH * SEQ] = 7  # the last target of any step before, so that steps can be cut out
        cls.clean = trivet.write_tokens(temporary() / "clean.u16", tokens)
        cls.flags = {"global_batch_size": BATCH, "shuffle": "off", "lr_decay_style": "constant"}
        folder = temporary() / "start"
        trivet.train(cls.clean, lr=0, train_iters=1, export_hf=folder, **cls.flags)
        tensors = weights_of(folder)
        shape, values = tensors["model.embed_tokens.weight"]
        values[255 * shape[1]] = math.inf
        cls.start = temporary() / "model.safetensors"
        trivet.write_safetensors(cls.start, tensors)
        cls.tokens = tokens

    def poisoned(self, steps):
        tokens = list(self.tokens)
        for step in steps:
            tokens[(step - 1) * BATCH * SEQ + 40] = 255
        return trivet.write_tokens(temporary() / "poisoned.u16", tokens)

    def without(self, steps):
        size = BATCH * SEQ
        tokens = [t for k in range(1, STEPS + 1) if k not in steps for t in self.tokens[(k - 1) * size : k * size]]
        return trivet.write_tokens(temporary() / "without.u16", tokens + [self.tokens[-1]])

    def run_poisoned(self, steps, skip, **flags):
        words = dict(trivet.SMALL, data=self.poisoned(steps), **{"init-from": self.start, "train-iters": STEPS})
        words.update({name.replace("_", "-"): value for name, value in dict(self.flags, **flags).items()})
        if skip is not None:
            words["skip-bad-steps"] = skip
        ranks = flags.get("pp", 1) * flags.get("tp", 1) * flags.get("dp", 1)
        return trivet.run(temporary(), words, ranks=ranks)

    def test_a_bad_step_changes_nothing_but_the_samples(self):
        bad = {4, 5, 7}
        for mesh in ({}, {"pp": 2}, {"tp": 2}, {"dp": 2}):
            result = self.run_poisoned(bad, 2, **mesh)
            self.assertEqual(result.code, 0, result.err)
            self.assertEqual([s["step"] for s in result.steps if s["skipped"]], sorted(bad))
            for s in result.steps:
                self.assertEqual(s["loss"] is None, s["skipped"])
                self.assertEqual(s["grad_norm"] is None, s["skipped"])
            self.assertEqual([s["consumed_samples"] for s in result.steps], [BATCH * k for k in range(1, STEPS + 1)])
            self.assertEqual(result.err.count("skipped"), 3, result.err)

    def test_weights_moments_and_bias_correction_are_those_of_the_good_steps(self):
        # To the bit those of a run whose data never had the bad ones.
        for optimizer in ("adam", "muon"):
            for bad in ({1}, {4, 5}, {2, 6}):
                skipped = self.run_poisoned(bad, 2, optimizer=optimizer)
                self.assertEqual(skipped.code, 0, skipped.err)
                start = {"init_from": self.start, "train_iters": STEPS - len(bad), "optimizer": optimizer}
                direct = trivet.train(self.without(bad), **dict(self.flags, **start))
                good = [s for s in skipped.steps if not s["skipped"]]
                self.assertEqual([s["loss"] for s in good], direct.losses())
                self.assertEqual([s["grad_norm"] for s in good], direct.norms())

    def test_one_too_many_stops(self):
        for skip, bad, last in ((None, {3}, 2), (0, {3}, 2), (1, {3, 4}, 3), (2, {2, 3, 5, 6, 7}, 6)):
            result = self.run_poisoned(bad, skip)
            self.assertEqual(result.code, 4, result.err)
            self.assertEqual(result.steps[-1]["step"], last)
            self.assertEqual(result.records[-1]["status"], "failed")


class Ramp(Base):
    RAMP = {"rampup_batch_size": "4,4,40", "train_iters": 8}

    def test_samples_and_losses_do_not_depend_on_the_mesh(self):
        wanted = None
        for mesh in ({}, {"pp": 2}, {"tp": 2}, {"pp": 2, "dp": 2}, {"pp": 2, "schedule": "zb-v"},
                     {"pp": 2, "schedule": "interleaved", "vpp": 2, "micro_batch_size": 2}):
            log = temporary() / "ids"
            result = trivet.train(self.data, log_sample_ids=log, **mesh, **self.RAMP)
            self.assertEqual([s["global_batch_size"] for s in result.steps], [4, 4, 4, 4, 8, 8, 12, 16])
            self.assertEqual([s["consumed_samples"] for s in result.steps], [4, 8, 12, 16, 24, 32, 44, 60])
            self.assertEqual([s["counted_tokens"] for s in result.steps], [SEQ * g for g in (4, 4, 4, 4, 8, 8, 12, 16)])
            samples = [json.loads(line)["samples"] for line in log.read_text().splitlines()]
            if wanted is None:
                wanted = (result.losses(), samples)
                constant = temporary() / "ids"
                trivet.train(self.data, log_sample_ids=constant, global_batch_size=4, train_iters=15)
                one_order = [i for line in constant.read_text().splitlines() for i in json.loads(line)["samples"]]
                self.assertEqual([i for step in samples for i in step], one_order)
            self.assertEqual(samples, wanted[1])
            for a, b in zip(result.losses(), wanted[0]):
                self.assertLess(trivet.relative(a, b), 2e-6)

    def test_from_the_final_batch_it_is_a_constant_one(self):
        want, weights = self.train(train_iters=4)
        for ramp in ("16,4,40", "16 4 40", "4,4,0"):
            got, theirs = self.train(train_iters=4, rampup_batch_size=ramp)
            self.assertEqual(got.losses(), want.losses())
            self.assertEqual(trivet.worst_difference(weights, theirs), 0)

    def test_memory_is_that_of_the_largest_batch(self):
        for mesh in ({"pp": 2}, {"pp": 2, "schedule": "gpipe"}, {"pp": 4, "schedule": "zb-h2"}):
            flags = dict(trivet.SMALL, data=self.data, **mesh, **{"rampup-batch-size": "2,2,40"})
            plan = json.loads(trivet.run(temporary(), dict(flags, **{"dry-run": True, "json": True})).out)
            real = trivet.train(self.data, rampup_batch_size="2,2,40", train_iters=14, **mesh)
            self.assertEqual(real.steps[-1]["global_batch_size"], 16)
            self.assertEqual(real.steps[-1]["peak_memory_bytes"],
                             max(stage["memory_bytes_per_rank"]["total"] for stage in plan["stages"]))


class Refusals(Base):
    def refuse(self, words, ranks=1, **changes):
        flags = dict(trivet.SMALL, data=self.data)
        flags.update({name.replace("_", "-"): value for name, value in changes.items()})
        result = trivet.run(temporary(), flags, ranks=ranks)
        self.assertEqual(result.code, 2, result.err)
        for word in words:
            self.assertIn(word, result.err)

    def test_refusals(self):
        self.refuse(["--optimizer", "adamw", "muon"], optimizer="adamw")
        self.refuse(["--sgd-momentum"], sgd_momentum=1)
        self.refuse(["--lr-decay-style", "WSD"], lr_decay_style="wsd")
        self.refuse(["--lr-wsd-decay-iters"], lr_decay_style="WSD")
        self.refuse(["--lr-wsd-decay-style", "sqrt"], lr_decay_style="WSD", lr_wsd_decay_iters=2, lr_wsd_decay_style="sqrt")
        self.refuse(["--lr-decay-style WSD"], lr_wsd_decay_iters=2)
        self.refuse(["--lr-warmup-iters", "--lr-warmup-fraction"], lr_warmup_iters=2, lr_warmup_fraction=0.1)
        self.refuse(["--lr-warmup-fraction"], lr_warmup_fraction=1.5)
        self.refuse(["--lr-warmup-init 0.1", "--lr"], lr_warmup_init=0.1)
        self.refuse(["--decoupled-min-lr", "--decoupled-lr"], decoupled_min_lr=1e-5)
        self.refuse(["--decoupled-min-lr 0.0001", "--decoupled-lr 1e-05"], decoupled_lr=1e-5, min_lr=1e-4)
        self.refuse(["--skip-bad-steps"], skip_bad_steps=-1)
        self.refuse(["--rampup-batch-size", "START,INCREMENT,SAMPLES"], rampup_batch_size="4,4")
        self.refuse(["--rampup-batch-size", "multiples", "4"], rampup_batch_size="2,4,40", ranks=2, dp=2, micro_batch_size=2)
        self.refuse(["--rampup-batch-size", "16"], rampup_batch_size="4,8,40")
        csv = temporary() / "s.csv"
        csv.write_text("0F0,0F1,0B0,0B1\n")
        self.refuse(["--rampup-batch-size", "built-in"], schedule=csv, global_batch_size=2, rampup_batch_size="1,1,4")


if __name__ == "__main__":
    unittest.main(verbosity=2)
