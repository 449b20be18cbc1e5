"""What a pipeline run says of itself: layers, memory and time of every stage; splits by profile; schedules from files.

Names of tests carry the rows of the project's list of public faults (docs/faults.md)."""
import json
import os
import unittest

import trivet
from trivet import SCHEDULES, TINY, TWO_CHUNKS, V_PLACEMENT, layer_map, plan, stage_memory

SHARES = ("compute", "warmup", "wait", "drain", "tensor", "data", "optimizer")


class Plans(trivet.Training):
    """Tests with runs of the tiny model, most of them dry."""

    model = TINY

    def refuse(self, code, words, ranks=1, **flags):
        result = trivet.run(trivet.new_folder(), trivet.small_flags({"data": self.data} | self.model | flags), ranks=ranks)
        errors = [line for line in result.err.splitlines() if line.startswith("trivet:")]
        self.assertEqual(result.code, code, result.out + result.err)
        self.assertEqual(len(errors), 1, result.err)
        for word in words:
            self.assertIn(word, errors[0])


class Layers(Plans):
    def check_map(self, num_layers, pp, num_chunks, **how):
        dry = plan(**TINY | {"num_layers": num_layers, "pp": pp} | how)
        chunks = dry["stages"]
        self.assertEqual([(c["stage"], c["chunk"]) for c in chunks], [(s, c) for s in range(pp) for c in range(num_chunks)])
        is_v = how.get("schedule") in V_PLACEMENT
        for chunk in chunks:
            s, c = chunk["stage"], chunk["chunk"]
            self.assertEqual(chunk["position"], 2 * pp - 1 - s if is_v and c == 1 else c * pp + s)
        self.assertEqual([layer for layers in layer_map(dry) for layer in layers], list(range(num_layers)))
        self.assertEqual([c["position"] for c in chunks if c["embedding"]], [0])
        self.assertEqual([c["position"] for c in chunks if c["head"]], [pp * num_chunks - 1])
        self.assertEqual(sum(c.get("parameters_per_rank", 0) for c in chunks), dry["parameters"])
        self.assertEqual(dry["parameters"], plan(**TINY | {"num_layers": num_layers})["parameters"])
        return [len(layers) for layers in layer_map(dry)]

    def test_b21_every_layer_once_in_order(self):
        self.assertEqual(self.check_map(30, 4, 1), [8, 8, 7, 7])
        self.assertEqual(self.check_map(80, 16, 2, vpp=2), [3] * 16 + [2] * 16)
        self.assertEqual(self.check_map(7, 2, 1), [4, 3])
        for partition in ("uniform", "params", "flops"):
            for schedule in ("1f1b", "zb-h2"):
                self.check_map(30, 4, 1, schedule=schedule, partition=partition)
            for schedule in TWO_CHUNKS:
                self.check_map(30, 4, 2, schedule=schedule, partition=partition)
                self.check_map(80, 16, 2, schedule=schedule, partition=partition)

    def test_b21_fewer_layers_than_stages(self):
        self.refuse(2, ["3 layers", "4 stages"], num_layers=3, pp=4, **{"dry-run": True})
        self.refuse(2, ["3 layers", "4 stages"], ranks=4, num_layers=3, pp=4)
        self.assertEqual(self.check_map(3, 4, 1, stage_layout="E|t|t|tL"), [0, 1, 1, 1])
        for partition in ("params", "flops"):
            self.assertEqual(sorted(self.check_map(3, 4, 1, partition=partition)), [0, 1, 1, 1])
        for how in ({"partition": "params"}, {"stage_layout": "E|t|t|tL"}, {"stage_layout": "Et|t|t|L"}):
            self.check_mesh(pp=4, num_layers=3, **how)

    def test_layouts_say_what_they_mean(self):
        for layout, pp, vpp, lengths in (("Et*5|tt|tL", 3, 1, [5, 2, 1]), ("E|(t|)*2t*6|L", 5, 1, [0, 1, 1, 6, 0]),
                                         ("E t t, t | t*4 | t L", 3, 1, [3, 4, 1]), ("Et|(tt|)*2tttL", 2, 2, [1, 2, 2, 3])):
            how = {"vpp": vpp} if vpp > 1 else {}
            self.assertEqual(self.check_map(8, pp, vpp, stage_layout=layout, **how), lengths)
        for pp, layout, words in ((2, "Et*7|L", ["7 layers", "8"]), (2, "Et*4|t*4|L", ["3 pieces", "2"]),
                                  (2, "t*4E|t*4L", ["column 1"]), (3, "Et*4||t*4L", ["column 6", "empty"]),
                                  (2, "Et*4|t*4", ["column 7", "L"]), (2, "Et*4|x*4L", ["column 6", "x"])):
            self.refuse(2, ["--stage-layout", *words], ranks=pp, pp=pp, stage_layout=layout)

    def test_slots(self):
        for m in (1, 3, 8):
            for schedule, want in (("naive", [1] * 4), ("gpipe", [m] * 4), ("1f1b", [min(m, 4 - s) for s in range(4)]),
                                   ("zb-h1", [min(m, 4)] * 4)):
                chunks = plan(**TINY | {"pp": 4, "schedule": schedule, "global_batch_size": m})["stages"]
                self.assertEqual([chunk["peak_slots"] for chunk in chunks], want)

    def test_the_schedule_when_none_is_named(self):
        self.assertEqual([plan(pp=2, vpp=vpp, **TINY)["schedule"] for vpp in (None, 1, 2)], ["1f1b", "1f1b", "interleaved"])


class Memory(Plans):
    model = TINY | {"seq_length": 64, "global_batch_size": 8}  # activations outweigh the weights

    def test_every_stage_takes_what_was_planned(self):
        for schedule in SCHEDULES:
            for recompute in ("none", "selective", "full"):
                with self.subTest(schedule=schedule, recompute=recompute):
                    flags = {"pp": 4, "schedule": schedule, "recompute": recompute, "train_iters": 2}
                    planned = stage_memory(plan(**self.model | flags))
                    real = self.train(**flags).pipeline["stages"]
                    self.assertEqual([s["peak_memory_bytes"] for s in real], [kinds["total"] for kinds in planned])
                    self.assertEqual([sum(n for kind, n in kinds.items() if kind != "total") for kinds in planned],
                                     [kinds["total"] for kinds in planned])

    def test_so_do_replicas_tensor_ranks_and_uneven_splits(self):
        valid = trivet.write_tokens(self.folder / "valid.u16", trivet.walk_tokens(9 * 64 + 1, seed=7))
        for flags in ({"pp": 2, "tp": 2, "dp": 2, "schedule": "zb-v"}, {"pp": 2, "stage_layout": "E|t*8L"},
                      {"pp": 2, "tp": 2, "vpp": 2, "partition": "params", "num_query_groups": 1},
                      {"pp": 4, "model": "gpt2", "untie_embeddings_and_output_weights": None, "schedule": "dualpipe-v"}):
            with self.subTest(**flags):
                planned = stage_memory(plan(**self.model | flags))
                real = self.train(train_iters=2, valid_data=valid, eval_interval=1, **flags).pipeline["stages"]
                self.assertEqual([s["peak_memory_bytes"] for s in real], [kinds["total"] for kinds in planned])

    def memory(self, num_micro, recompute, num_layers=8):
        return stage_memory(plan(**self.model | {"pp": 4, "schedule": "gpipe", "global_batch_size": num_micro,
                                                 "recompute": recompute, "num_layers": num_layers}))

    def test_recomputation_bounds_activations(self):
        for recompute in ("none", "selective", "full"):
            few, some, many = (self.memory(m, recompute) for m in (4, 8, 16))
            for stage in range(4):
                a, b, c = (kinds[stage]["activations"] for kinds in (few, some, many))
                self.assertEqual(c - b, 2 * (b - a))
                if recompute == "full":
                    self.assertEqual(b, a)
                else:
                    self.assertGreater(b, 1.5 * a)
                self.assertLessEqual(a, self.memory(4, "none")[stage]["activations"])

    def test_messages_take_what_the_micro_batches_in_flight_do(self):
        message, tokens = 64 * 32 * 4, 2 * 64 * 4  # floats of [S, C]; ids and targets of a slot
        for recompute in ("none", "full"):
            few, some, many = (self.memory(m, recompute) for m in (4, 8, 16))
            for stage, kept in enumerate((1, 3, 3, 2)):  # y; x, y and dx; x and dx
                a, b, c = (kinds[stage]["buffers"] for kinds in (few, some, many))
                self.assertEqual((b - a, c - b), (4 * (kept * message + tokens), 8 * (kept * message + tokens)))

    def test_full_recomputation_holds_one_micro_batch_of_a_stage(self):
        # The working set of a stage grows with its layers, and not with the micro-batches.
        for m in (4, 16):
            two, four, six = (self.memory(m, "full", num_layers) for num_layers in (8, 16, 24))
            none = self.memory(1, "none", 16)
            for stage in range(4):
                a, b, c = (kinds[stage]["activations"] for kinds in (two, four, six))
                self.assertEqual(c - b, b - a)
                self.assertLessEqual(b, 1.1 * none[stage]["activations"])


    def test_the_limit_that_the_best_split_needs_is_enough(self):
        three = [f"E{'t' * a}|{'t' * b}|{'t' * (6 - a - b)}L" for a in range(6) for b in range(1, 6 - a)]
        v = [f"E{'t' * a}|{'t' * b}|{'t' * c}|{'t' * (5 - a - b - c)}L"
             for a in range(3) for b in range(1, 3) for c in range(1, 6 - a - b)]
        gpt2 = {"model": "gpt2", "untie_embeddings_and_output_weights": None}
        for layouts, how in ((three, {"pp": 3, "schedule": "zb-h2"}),
                             (three, {"pp": 3, "tp": 4, "sequence_parallel": True, "recompute": "selective"}),
                             (three, {"pp": 3, "dp": 2, "zero_stage": 3}),
                             (three, {"pp": 3, "dp": 4, "zero_stage": 2, "zero_group_size": 2, "schedule": "zb-h1"}),
                             (three, {"pp": 3, "dp": 2, "zero_stage": 1}),
                             (v, {"pp": 2, "dp": 2, "zero_stage": 3, "schedule": "zb-v", **gpt2}),
                             (v, {"pp": 2, "schedule": "zb-v", "hidden_dropout": 0.1, "recompute": "full", **gpt2})):
            flags = TINY | {"num_layers": 6 if layouts is three else 5} | how
            needed = [max(sum(m.values()) - m["total"] for m in stage_memory(plan(stage_layout=layout, **flags)))
                      for layout in layouts]
            limit = {"partition": "flops", "memory_limit": min(needed) / 2**20}
            with self.subTest(**how):
                dry = plan(**flags | limit)
                self.assertEqual(max(m["total"] for m in stage_memory(dry)), min(needed))

class Metrics(Plans):
    def check_steps(self, run, pp):
        for step in run.steps:
            idle = step["idle"]
            self.assertEqual(set(idle), {"warmup", "wait", "drain"})
            self.assertTrue(0 <= step["bubble_fraction"] < 1, step)
            self.assertGreaterEqual(min(idle.values()), 0)
            self.assertAlmostEqual(sum(idle.values()), step["bubble_fraction"], delta=1e-9)
            if pp == 1:
                self.assertEqual((step["bubble_fraction"], set(idle.values())), (0, {0}))

    def check_stages(self, run, pp):
        self.assertEqual([r["type"] for r in run.records[-2:]], ["pipeline", "end"])
        self.assertEqual([s["stage"] for s in run.pipeline["stages"]], list(range(pp)))
        for stage in run.pipeline["stages"]:
            shares = [stage[name] for name in SHARES]
            self.assertTrue(0 <= min(shares) and max(shares) <= 1, stage)
            self.assertLessEqual(sum(shares), 1.01)
            self.assertGreater(stage["compute"], 0)
        for name in ("measured_bubble_fraction", "predicted_bubble_fraction"):
            self.assertTrue(0 <= run.pipeline[name] < 1, run.pipeline)
            self.assertEqual(run.pipeline[name] == 0, pp == 1)

    def test_time_of_steps_and_stages(self):
        for schedule in SCHEDULES:
            for pp in (1, 2, 4):
                with self.subTest(schedule=schedule, pp=pp):
                    run = self.train(pp=pp, schedule=schedule)
                    self.check_steps(run, pp)
                    self.check_stages(run, pp)

    def test_shares_of_replicas_do_not_overlap(self):
        for mesh in ({"dp": 4}, {"pp": 2, "dp": 2}, {"pp": 2, "dp": 2, "tp": 2}, {"pp": 2, "dp": 2, "schedule": "zb-v"}):
            with self.subTest(**mesh):
                self.check_stages(self.train(**mesh), mesh.get("pp", 1))

    def test_one_micro_batch_at_a_time_leaves_the_others_idle(self):
        for pp in (2, 4):
            run = self.train(pp=pp, schedule="naive")
            self.assertGreater(run.pipeline["measured_bubble_fraction"], 0.95 * (1 - 1 / pp))


class Profiles(Plans):
    def save(self, **changes):
        """A profile of this model with times of our own."""
        path = trivet.new_folder() / "profile.json"
        self.train(train_iters=1, partition="profile", save_profile=path, **changes)
        return path

    def edited(self, path, **seconds):
        profile = json.loads(path.read_text())
        for sort, forward in seconds.items():
            profile["seconds"][sort] = {"forward": forward, "backward_input": 0.0, "backward_weight": 0.0}
        out = path.with_name("edited.json")
        out.write_text(json.dumps(profile))
        return out

    def test_a_saved_profile_gives_the_same_split(self):
        path = trivet.new_folder() / "sub" / "profile.json"
        measured = self.train(pp=4, partition="profile", save_profile=path)
        loaded = self.train(pp=4, partition="profile", load_profile=path)
        self.assertEqual(loaded.records[0]["units"], measured.records[0]["units"])
        self.assertEqual(loaded.losses(), measured.losses())
        dry = plan(pp=4, partition="profile", load_profile=path, **TINY)
        self.assertEqual([len(layers) + (i == 0) + (i == 3) for i, layers in enumerate(layer_map(dry))],
                         [num for _, num in measured.records[0]["units"]])

    def test_what_is_no_plain_file_stays_as_it_is(self):
        path = trivet.new_folder() / "pipe"
        os.mkfifo(path)
        self.refuse(2, [str(path), "not a plain file"], ranks=2, pp=2, partition="profile", save_profile=path)
        self.assertTrue(path.is_fifo())

    def test_times_decide(self):
        path = self.save()
        for pp, seconds, want in ((2, {"embedding": 0.0, "layer": 1.0, "head": 2.0}, [5, 3]),
                                  (2, {"embedding": 4.0, "layer": 1.0, "head": 0.0}, [2, 6]),
                                  (2, {"embedding": 1.0, "layer": 1.0, "head": 100.0}, [8, 0]),
                                  (4, {"embedding": 0.0, "layer": 1.0, "head": 3.0}, [3, 3, 2, 0])):
            dry = plan(pp=pp, partition="profile", load_profile=self.edited(path, **seconds), **TINY)
            self.assertEqual([len(layers) for layers in layer_map(dry)], want)
        self.check_mesh(pp=2, partition="profile", load_profile=self.edited(path, embedding=4.0, layer=1.0, head=0.0))

    def test_the_simulated_pipeline_is_that_of_the_profile(self):
        path = self.edited(self.save(), embedding=0.0, layer=1.0, head=2.0)
        for micro in (2, 4):  # 5 and 3 layers, the head as long as two: stages of 5 s
            run = self.train(pp=2, partition="profile", load_profile=path, global_batch_size=micro)
            self.assertAlmostEqual(run.pipeline["profile_window_seconds"], 5 * (micro + 1), delta=1e-9)
            self.assertTrue(0 < run.pipeline["window_seconds"] < 60)
            self.assertIn(f"{5000 * (micro + 1)}.000 ms simulated from the profile", run.out)
        self.assertNotIn("profile_window_seconds", self.train(pp=2).pipeline)

    def test_refused(self):
        path = self.save()
        load = {"ranks": 2, "pp": 2, "partition": "profile"}
        for name, flags in (("hidden_size", {"hidden_size": 64}), ("seq_length", {"seq_length": 8}),
                            ("vocab_size", {"vocab_size": 300}), ("micro_batch_size", {"micro_batch_size": 2}),
                            ("ffn_hidden_size", {"ffn_hidden_size": 96}), ("recompute", {"recompute": "full"})):
            self.refuse(2, ["--load-profile", name], load_profile=path, **load, **flags)
        threads = int(json.loads(path.read_text())["threads"])
        self.assertEqual(threads, int(TINY.get("threads", threads)))
        self.refuse(2, ["--load-profile", f"{threads} thread", f"--threads is {threads + 1}"], load_profile=path,
                    threads=threads + 1, **load)
        self.refuse(2, ["--partition profile", "--load-profile"], ranks=1, pp=2, partition="profile", **{"dry-run": True})
        self.refuse(2, ["--save-profile"], ranks=2, pp=2, save_profile=path)
        self.refuse(2, ["--load-profile", "--save-profile"], load_profile=path, save_profile=path, **load)
        self.refuse(2, ["/proc/nothing"], save_profile="/proc/nothing/p.json", **load)
        self.refuse(3, ["missing.json"], load_profile=self.folder / "missing.json", **load)

    def test_absurd_times_are_refused(self):
        path = self.edited(self.save(), embedding=0.0, layer=1e308, head=0.0)
        self.refuse(2, ["--partition profile", "1e+150"], ranks=2, pp=2, partition="profile", load_profile=path)

    def test_damaged_files(self):
        good = self.save().read_text()
        for i, text in enumerate(("", "{", "[]", "{}", good[:-3], good.replace('"layer"', '"player"'), good + "}",
                                  good.replace('"forward": ', '"forward": -'), json.dumps({"sizes": 3}))):
            path = self.folder / f"damaged{i}.json"
            path.write_text(text)
            self.refuse(3, [path.name], ranks=2, pp=2, partition="profile", load_profile=path)


class Files(Plans):
    model = TINY | {"global_batch_size": 2}

    def file(self, text):
        path = trivet.new_folder() / "steps.csv"
        path.write_text(text)
        return path

    def test_a_schedule_by_hand(self):
        valid = trivet.write_tokens(self.folder / "valid.u16", trivet.walk_tokens(5 * 16 + 1, seed=7))
        for text in ("0F0,0F1,,0B0,,0B1\n1F0,,1B0,1F1,1B1,\n",  # blanks are steps in which nothing happens
                     "0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n",  # backwards descend
                     "0F0,0F1,0I0,0I1,0W1,0W0\n1F0,1I0,1F1,1I1,1W0,1W1\n",
                     "0F0,0F1,3F0,3B0,3F1,3B1,0B0,0B1\n1F0,2F0,1F1,2F1,2B0,1B0,2B1,1B1\n"):
            with self.subTest(text=text):
                flags = {"valid_data": valid, "eval_interval": 1}
                self.assert_same(self.train(pp=2, schedule=self.file(text), **flags), self.reference(**flags))

    def test_a_tied_weight_is_whole_before_replicas_sum_it(self):
        # The head's W comes last, behind the embedding's, and both lie on stage 0; each layer fills a bucket of gradients.
        tied = {"untie_embeddings_and_output_weights": None, "model": "gpt2", "global_batch_size": 4, "train_iters": 3,
                "num_layers": 4, "hidden_size": 160, "ffn_hidden_size": 640}
        path = self.file("0F0,0F1,3F0,3I0,3F1,3I1,0I0,0I1,0W0,0W1,3W0,3W1\n1F0,1F1,2F0,2F1,2B0,1B0,2B1,1B1\n")
        self.check_mesh(pp=2, dp=2, schedule=path, **tied)

    def test_1f1b_by_hand_is_1f1b(self):
        path = self.file("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
        self.assert_same_bits(self.train_and_export(pp=2, schedule=path), self.train_and_export(pp=2, schedule="1f1b"))

    def test_refused(self):
        good = self.file("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
        self.refuse(2, ["2 stages", "--pp is 4"], ranks=4, pp=4, schedule=good)
        self.refuse(2, ["2 micro-batches", "3"], ranks=2, pp=2, schedule=good, global_batch_size=3)
        self.refuse(2, ["1 chunks", "--vpp is 2"], ranks=2, pp=2, vpp=2, schedule=good)
        self.refuse(2, ["slot"], ranks=2, pp=2, schedule=good, slot_limit=1)
        self.refuse(3, ["missing.csv"], ranks=2, pp=2, schedule=self.folder / "missing.csv")
        for text, words in (("0F0,0F1,0B0,0B1\n1F0,1B0,1Q1,1B1\n", ["row 2, cell 3", "1Q1"]),
                            ("0F0,0F1,0B0,0B1x\n1F0,1B0,1F1,1B1\n", ["row 1, cell 4", "0B1x"]),
                            ("0F0,0F1,0B0,0B1\n1B0,1F0,1F1,1B1\n", ["before its F"]),
                            ("0F0,0F1,0B0\n1F0,1B0,1F1,1B1\n", ["7 computing actions"]),
                            ("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", ["wait for each other"]), ("", ["no action"])):
            self.refuse(3, words, ranks=2, pp=2, schedule=self.file(text))


if __name__ == "__main__":
    unittest.main(verbosity=2)
