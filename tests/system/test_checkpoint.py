"""--save and --load: runs that go on as if nothing had been, on the mesh that saved (tests/train/test_checkpoint_meshes
has the pairs of meshes), damaged checkpoints, full disks, learning rates (rows B24 to B34, B59)."""
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import time
import unittest

import trivet
from trivet import new_folder, read_safetensors, write_safetensors

TINY = dict(num_layers=2, hidden_size=24, num_attention_heads=4, num_query_groups=2, ffn_hidden_size=52, vocab_size=97,
            seq_length=12, global_batch_size=8)


def steps_in(folder):
    """All that is there, for runs that ended well."""
    return sorted(int(p.name[5:]) for p in folder.glob("step-*"))


def finished(folder):
    return [int(p.name[5:]) for p in folder.glob("step-*") if p.name[5:].isdigit()]


class Checkpoint(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = new_folder()
        cls.data = trivet.write_tokens(cls.folder / "walk.u16", trivet.walk_tokens(12 * 61 + 1, 97))

    def run_it(self, ranks=1, mpi=False, before=None, **flags):
        """Any exit code. Exports, so that weights can be compared."""
        folder = new_folder()
        exact = {name: flags.pop(name) for name in list(flags) if "-" in name}
        flags = exact | trivet.small_flags(
            {"data": self.data, "export_hf": folder / "hf", "metrics": folder / "metrics.jsonl"} | TINY | flags)
        process = subprocess.run(trivet.command(flags, ranks, mpi), capture_output=True, text=True, timeout=60,
                                 stdin=subprocess.DEVNULL, preexec_fn=before)
        result = trivet.Result(process, folder)
        result.export = folder / "hf" / "model.safetensors"
        return result

    def train(self, **flags):
        result = self.run_it(**flags)
        self.assertEqual(result.code, 0, result.err)
        return result

    def refuse(self, code, words, **flags):
        result = self.run_it(**flags)
        self.assertEqual(result.code, code, result.out + result.err)
        errors = [line for line in result.err.splitlines() if line.startswith("trivet: error")]
        self.assertEqual(len(errors), 1, result.err)
        for word in words:
            self.assertIn(word, errors[0])
        return result

    def assert_goes_on(self, got, want, after):
        """The steps behind `after`, bit for bit, and the weights at the end."""
        kept = [s for s in want.steps if s["step"] > after]
        for a, b in zip(got.steps, kept, strict=True):
            for key in ("step", "loss", "grad_norm", "lr", "skipped", "consumed_samples", "global_batch_size",
                        "counted_tokens"):
                self.assertEqual(a[key], b[key], (a["step"], key))
        self.assertEqual(got.export.read_bytes(), want.export.read_bytes())

    # ---- the same mesh ----

    def test_every_optimizer_ramp_and_rate_goes_on_bit_for_bit(self):
        wsd = dict(lr_decay_style="WSD", lr_wsd_decay_iters=4, lr_warmup_iters=3)
        cases = [
            dict(), dict(ranks=2, tp=2, sequence_parallel=True, dropout=0.1), dict(ranks=2, mpi=True, dp=2, zero_stage=1),
            dict(ranks=3, dp=3, zero_stage=3, global_batch_size=6, optimizer="sgd", lr=0.1),
            dict(ranks=2, dp=2, zero_stage=2, optimizer="lion", **wsd),
            dict(ranks=4, pp=2, dp=2, zero_stage=3, optimizer="muon", decoupled_lr=1e-4),
            dict(rampup_batch_size="2,2,20", micro_batch_size=2),
            dict(ranks=4, pp=2, tp=2, model="gpt2", num_query_groups=None, untie_embeddings_and_output_weights=None,
                 schedule="zb-v", num_layers=4),
        ]
        for flags in cases:
            with self.subTest(**flags):
                save = new_folder() / "deep" / "er"
                want = self.train(save=save, save_interval=4, **flags)
                self.assertEqual(steps_in(save), [4, 8, 10])
                self.assert_goes_on(self.train(load=save / "step-00000004", **flags), want, 4)
                self.assert_goes_on(self.train(load=save / "step-00000008", **flags), want, 8)

    def test_b34_epochs_end_anywhere(self):
        data = trivet.write_tokens(self.folder / "short.u16", trivet.walk_tokens(12 * 4 * 8 + 1, 97))  # 4 steps an epoch
        for shuffle in ("on", "off"):
            save, log, again = new_folder(), new_folder() / "a", new_folder() / "b"
            want = self.train(data=data, save=save, save_interval=2, train_iters=12, log_sample_ids=log, shuffle=shuffle)
            for step in (4, 6):
                got = self.train(data=data, load=save / f"step-{step:08d}", train_iters=12, log_sample_ids=again,
                                 shuffle=shuffle)
                self.assert_goes_on(got, want, step)
                lines = again.read_text().splitlines()
                self.assertEqual(lines[step - 12:], log.read_text().splitlines()[step:])

    def test_b28_b29_samples_follow_the_global_batch(self):
        save, log, again = new_folder(), self.folder / "ids", self.folder / "ids-again"
        self.train(ranks=2, dp=2, micro_batch_size=1, save=save, save_interval=3, log_sample_ids=log)
        want = [sample for line in log.read_text().splitlines() for sample in json.loads(line)["samples"]]
        self.assertEqual(len(want), 80)
        for flags in (dict(ranks=2, dp=2, micro_batch_size=2), dict(), dict(ranks=4, dp=4), dict(ranks=8, dp=8)):
            again.unlink(missing_ok=True)
            self.train(load=save / "step-00000003", log_sample_ids=again, **flags)
            got = [sample for line in again.read_text().splitlines() for sample in json.loads(line)["samples"]]
            self.assertEqual(got, want[24:], flags)

    def test_skipped_steps_count_on(self):
        # One token's embedding is infinite: the steps that read it are bad.
        tokens = trivet.walk_tokens(12 * 80 + 1, 90)
        for sample in (8 * 3, 8 * 4, 8 * 7):  # steps 4, 5, 8
            tokens[12 * sample + 3] = 95
        data = trivet.write_tokens(self.folder / "bad.u16", tokens)
        start = self.train(train_iters=1, lr=0).export
        tensors = read_safetensors(start)
        tensors["model.embed_tokens.weight"][1][95 * 24] = math.inf
        write_safetensors(self.folder / "bad.safetensors", tensors)
        save = new_folder()
        flags = dict(data=data, shuffle="off", skip_bad_steps=2, init_from=self.folder / "bad.safetensors")
        want = self.train(save=save, save_interval=1, **flags)
        self.assertEqual([s["step"] for s in want.steps if s["skipped"]], [4, 5, 8])
        for step in (4, 5, 7):
            self.assertEqual(json.loads((save / f"step-{step:08d}" / "state.json").read_text())["bad_steps_in_a_row"],
                             {4: 1, 5: 2, 7: 0}[step])
            self.assert_goes_on(self.train(load=save / f"step-{step:08d}", **flags), want, step)
        # A run that ends by itself ends the save that is on its way.
        save_async = new_folder()
        self.assertEqual(self.run_it(save=save_async, save_interval=3, save_async=True, **(flags | {"skip_bad_steps": 0})).code, 4)
        self.assertEqual(steps_in(save_async), [3])
        # A limit of one is reached by the step behind the load.
        self.assertEqual(self.run_it(load=save / "step-00000004", **(flags | {"skip_bad_steps": 1})).code, 4)

    def test_saving_does_not_change_training_and_async_writes_the_same_bytes(self):
        plain = self.train(ranks=2, dp=2, zero_stage=2)
        folders = [new_folder() / "blocking", new_folder() / "async"]
        for folder, flags in zip(folders, ({}, {"async_save": True})):
            got = self.train(ranks=2, dp=2, zero_stage=2, save=folder, save_interval=3, keep=3, **flags)
            self.assert_goes_on(got, plain, 0)
            self.assertEqual(steps_in(folder), [6, 9, 10])
            saves = [(r["step"], r["path"]) for r in got.records if r["type"] == "save"]
            self.assertEqual(saves, [(s, f"{folder}/step-{s:08d}") for s in (3, 6, 9, 10)])
        for step in (6, 9, 10):
            names = sorted(p.name for p in (folders[0] / f"step-{step:08d}").iterdir())
            self.assertEqual(names, ["index.json", "shard-00000.safetensors", "shard-00001.safetensors", "state.json"])
            for name in names:
                one, other = ((f / f"step-{step:08d}" / name).read_bytes() for f in folders)
                self.assertEqual(one, other, name)

    # ---- which checkpoint ----

    def saved(self, **flags):
        save = new_folder() / "ckpt"
        self.train(save=save, save_interval=4, **flags)
        return save

    def test_auto_takes_the_newest_that_is_whole(self):
        flags = dict(ranks=2, dp=2)
        base = self.saved(**flags)
        want = self.train(**flags)

        def damage(step, how):
            shard = base.parent / "now" / f"step-{step:08d}" / "shard-00001.safetensors"
            if how == "cut":
                shard.write_bytes(shard.read_bytes()[:-1])
            elif how == "bit":
                data = bytearray(shard.read_bytes())
                data[-5] ^= 1
                shard.write_bytes(data)
            elif how == "gone":
                shard.unlink()
            elif how == "empty":
                shutil.rmtree(shard.parent)
                shard.parent.mkdir()
            elif how == "state":
                state = shard.parent / "state.json"
                state.write_text(state.read_text().replace('"consumed_samples": ', '"consumed_samples": 1'))

        words = {"cut": "bytes", "bit": "hash", "gone": "No such file", "empty": "index.json", "state": "state.json has"}
        for how, word in words.items():
            save = base.parent / "now"
            shutil.rmtree(save, ignore_errors=True)
            shutil.copytree(base, save)
            damage(10, how)
            (save / "step-00000012.tmp").mkdir()
            got = self.train(save=save, load="auto", **flags)
            self.assertIn("continuing after step 8", got.err)
            self.assertRegex(got.err, f"warning: step 10 is skipped: .*{word}")
            self.assert_goes_on(got, want, 8)
            self.assertEqual(steps_in(save), [4, 8, 10])  # the damaged one has been replaced
            self.assertIn("continuing after step 10", self.train(save=save, load="auto", **flags).err)
            for step in (4, 8, 10):
                damage(step, how)
            error = self.refuse(3, [str(save), word], save=save, load="auto", **flags).err
            self.assertEqual(error.count("is skipped"), 3)
            self.refuse(3, [word], load=save / "step-00000008", **flags)

    def test_mistaken_flags_are_told_before_the_shards_are_read(self):
        """A byte of a shard is wrong: who reads it says so, who is told first what was mistaken has not read it."""
        save = new_folder() / "ckpt"
        self.train(save=save, train_iters=2)
        shard = next(save.glob("step-*/shard-*"))
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        self.refuse(3, ["can be loaded", "is damaged"], load=save, train_iters=3)
        for ranks, load, more in ((1, save, {}), (2, "auto", {"save": save}), (1, shard.parent, {})):
            flags = dict(load=load, ranks=ranks, train_iters=3, **more)
            self.refuse(2, ["--micro-batch-size 3"], micro_batch_size=3, **flags)
            self.refuse(2, ["--optimizer adam", "lion"], optimizer="lion", **flags)
            self.refuse(2, ["hidden", "24", "48"], hidden_size=48, **flags)
            self.refuse(2, ["--schedule", "wrong"], schedule="wrong", **flags)
            self.refuse(3, ["nowhere.u16"], valid_data=save / "nowhere.u16", **flags)

    def test_b54_a_rank_killed_between_and_in_saves(self):
        for how in ({}, {"save-async": True}):
            save = new_folder()
            flags = dict(trivet.small_flags({"data": self.data} | TINY), **how, save=save, dp=2, load="auto", keep=2)
            flags |= {"save-interval": 1, "zero-stage": 3, "train-iters": 10**6, "timeout": 30}
            job = subprocess.Popen(trivet.command(flags, 2, mpi=True), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and max(finished(save), default=0) < 3:
                time.sleep(0.01)
            found = subprocess.run(["pgrep", "-x", "-f", f"{trivet.BINARY} train .*{save} .*"], capture_output=True, text=True)
            os.kill(int(found.stdout.split()[-1]), signal.SIGKILL)
            job.communicate(timeout=40)
            self.assertNotEqual(job.returncode, 0)
            newest = max(finished(save))
            self.assertGreaterEqual(newest, 3)
            flags["train-iters"] = newest + 1
            again = trivet.run(new_folder(), flags, ranks=2, mpi=True)
            self.assertEqual(again.code, 0, again.err)
            self.assertIn(f"continuing after step {newest} ", again.err)
            self.assertEqual([s["step"] for s in again.steps], [newest + 1])

    def test_nothing_there_is_a_fresh_start(self):
        save = new_folder() / "new"
        want = self.train()
        self.assert_goes_on(self.train(save=save, load="auto"), want, 0)
        shutil.rmtree(save / "step-00000010")
        (save / "step-00000010.tmp").mkdir()
        (save / "step-00000010.tmp" / "shard-00000.safetensors").write_bytes(b"cut short")
        self.assert_goes_on(self.train(save=save, load="auto"), want, 0)
        self.assertEqual([p.name for p in save.iterdir()], ["step-00000010"])
        self.refuse(3, ["--load", str(self.folder)], load=self.folder)
        self.refuse(2, ["--load auto", "--save"], load="auto")

    def test_a_run_at_its_end_trains_nothing(self):
        save = self.saved()
        before = {p: p.stat().st_mtime_ns for p in save.rglob("*")}
        got = self.train(save=save, load="auto", keep=9)
        self.assertEqual(got.steps, [])
        self.assertEqual(got.records[-1]["type"], "end")
        self.assertEqual((got.records[-1]["status"], got.records[-1]["step"]), ("ok", 10))
        self.assertEqual(got.export.read_bytes(), self.train().export.read_bytes())
        self.assertEqual({p: p.stat().st_mtime_ns for p in save.rglob("*")}, before)

    def test_metrics_are_appended_to(self):
        save, metrics = new_folder(), self.folder / "metrics.jsonl"
        self.train(save=save, train_iters=4, lr_decay_iters=10, metrics=metrics)
        with metrics.open("a") as file:
            file.write('{"type":"st')  # killed in the middle of a line
        self.train(save=save, load="auto", metrics=metrics)
        lines = metrics.read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines if line.startswith('{"type":"step"')]
        self.assertEqual(steps, list(range(1, 11)))
        self.assertEqual(sum(line.startswith('{"type":"config"') for line in lines), 2)
        self.train(metrics=metrics, train_iters=2)
        self.assertEqual(sum('"type":"step"' in line for line in metrics.read_text().splitlines()), 2)

    def test_index_names_stay_in_the_folder(self):
        whole = self.saved()
        for name in ("../x.safetensors", "/etc/passwd", "a/b", ".hidden", ""):
            save = new_folder() / "ckpt"
            shutil.copytree(whole, save)
            index = save / "step-00000010" / "index.json"
            index.write_text(index.read_text().replace('"shard-00000.safetensors":', json.dumps(name) + ":"))
            self.refuse(3, [str(index), f"'{name}'"], load=save / "step-00000010")
            break_all = [save / f"step-{s:08d}" / "index.json" for s in (4, 8)]
            for path in break_all:
                path.unlink()
            self.refuse(3, [f"'{name}'"], load=save)

    # ---- what is taken over ----

    def test_the_model_comes_from_the_checkpoint_and_must_match(self):
        save = self.saved()
        want = self.train(train_iters=12, lr_decay_iters=12)
        bare = dict.fromkeys(trivet.small_flags(TINY))  # none of the flags
        flags = {"data": self.data, "data-format": "u16", "threads": 1, "train-iters": 12, "load": save / "step-00000004",
                 "lr-decay-iters": 12}
        folder = new_folder()
        got = trivet.run(folder, dict(bare, **flags, **{"export-hf": folder / "hf"}))
        self.assertEqual(got.code, 0, got.err)
        self.assertEqual(got.steps[0]["step"], 5)
        self.assertEqual(got.steps[0]["global_batch_size"], 8)
        # The first run's rates had another end: the weights differ, their shapes do not.
        shapes = [{n: t[0] for n, t in read_safetensors(f).items()} for f in (folder / "hf" / "model.safetensors", want.export)]
        self.assertEqual(shapes[0], shapes[1])
        for flag, value, words in (("hidden_size", 48, ["hidden size", "24", "48"]), ("vocab_size", 98, ["vocabulary", "97"]),
                                   ("num_layers", 3, ["layers"]), ("num_query_groups", 4, ["query groups"])):
            self.refuse(2, [str(save)] + words, load=save, **{flag: value})
        self.refuse(2, ["--optimizer adam", "--no-load-optim"], load=save, optimizer="sgd")
        self.train(load=save, optimizer="sgd", no_load_optim=True, train_iters=11)

    def rates(self, result):
        return [s["lr"] for s in result.steps]

    def test_b30_learning_rates(self):
        cosine = dict(lr=1e-3, min_lr=1e-4, lr_warmup_iters=4, train_iters=20)
        none = dict.fromkeys(["lr", "min_lr", "lr_warmup_iters"])
        save = new_folder()
        straight = self.train(save=save, save_interval=10, **cosine)
        load = {"load": save / "step-00000010"}
        # The same flags, or none: the straight run.
        for flags in (cosine, cosine | none):
            self.assertEqual(self.rates(self.train(**load, **flags)), self.rates(straight)[10:])
        # A new maximum: the other flags stay; a straight run with that maximum.
        other = self.rates(self.train(**(cosine | {"lr": 2e-3})))
        self.assertEqual(self.rates(self.train(**load, **(cosine | none | {"lr": 2e-3}))), other[10:])
        # This run's flags alone.
        own = {"train_iters": 20, "lr": 2e-3, "override-opt_param-scheduler": True}
        self.assertEqual(self.rates(self.train(**load, **own)), self.rates(self.train(train_iters=20, lr=2e-3))[10:])
        # The checkpoint's alone, its end of the decay too.
        stored = {"train_iters": 24, "lr": 5.0, "lr_decay_style": "linear", "use-checkpoint-opt_param-scheduler": True}
        self.assertEqual(self.rates(self.train(**load, **stored)), self.rates(straight)[10:] + [1e-4] * 4)
        self.refuse(2, ["override-opt_param-scheduler", "use-checkpoint"], **load,
                    **{"override-opt_param-scheduler": True, "use-checkpoint-opt_param-scheduler": True})

    def test_weights_only(self):
        save = self.saved()
        weights = self.train(load=save, train_iters=10).export
        want = self.train(init_from=weights, train_iters=3, lr=2e-3)
        got = self.train(load=save, finetune=True, train_iters=3, lr=2e-3)
        self.assert_goes_on(got, want, 0)
        self.assertEqual(got.steps[0]["step"], 1)
        self.refuse(2, ["--finetune", "--load auto"], save=save, load="auto", finetune=True)
        self.refuse(2, ["--finetune", "--load"], finetune=True)
        # Moments of zero, but the step, the samples and the rate go on.
        fresh = self.train(load=save / "step-00000008", no_load_optim=True, no_load_rng=True)
        whole = self.train(load=save / "step-00000008")
        self.assertEqual([s["consumed_samples"] for s in fresh.steps], [72, 80])
        self.assertEqual(fresh.losses()[0], whole.losses()[0])
        self.assertNotEqual(fresh.losses()[1], whole.losses()[1])

    def test_a_checkpoint_beats_init_from(self):
        save = self.saved()
        other = self.train(seed=7, train_iters=1).export
        self.assert_goes_on(self.train(load=save / "step-00000008", init_from=other), self.train(), 8)

    # ---- disks ----

    def test_a_write_that_fails_leaves_the_older_checkpoint(self):
        size = max(p.stat().st_size for p in self.saved().rglob("shard-*"))
        for flags in (dict(local_ranks=1), dict(local_ranks=1, save_async=True), dict(ranks=4, tp=2, dp=2, zero_stage=3)):
            save = new_folder()
            self.train(save=save, train_iters=3, **flags)
            limit = size // (8 if "ranks" in flags else 2)
            got = self.run_it(save=save, load="auto", save_interval=2, metrics=None, export_hf=None,
                              before=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)), **flags)
            self.assertEqual(got.code, 1, got.err)
            self.assertIn("shard-", got.err)
            self.assertIn("File too large", got.err)
            self.assertEqual(got.err.count("trivet: error"), 1, got.err)
            self.assertEqual([p.name for p in save.iterdir()], ["step-00000003"])
            self.assertIn("continuing after step 3", self.train(save=save, load="auto", **flags).err)

    def test_free_disk_is_checked_before_training(self):
        big = dict(num_layers=1000, hidden_size=96000, num_attention_heads=1000, num_query_groups=None,
                   ffn_hidden_size=400000)
        self.refuse(2, ["--save", "MiB are free"], save=new_folder(), **big)
        self.refuse(2, ["--keep", "would fit"], save=new_folder(), save_interval=1, train_iters=10**12)
        self.train(save=new_folder(), save_interval=10**11, train_iters=10, keep=2)
        plain = new_folder() / "file"
        plain.write_text("")
        self.refuse(2, ["--save", str(plain)], save=plain)
        self.refuse(2, ["--keep", "--save"], keep=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
