"""Data through the program: peers' files, blends, documents and validation files, the same on every mesh."""
import json
import struct
import unittest
from array import array
from pathlib import Path

import trivet

EOD = 0
GPT2 = dict(model="gpt2", untie_embeddings_and_output_weights=None)
SMALL = dict(num_layers=4, hidden_size=32, ffn_hidden_size=64, seq_length=16, global_batch_size=8, train_iters=3,
             data_format="auto")
RESETS = dict(eod_token=EOD, eod_mask_loss=True, reset_position_ids=True, reset_attention_mask=True)


def documents(count, seed=1):
    """Documents of 1 to 40 ids in 1..255, each with EOD behind it."""
    found, state = [], seed
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        walk = trivet.walk_tokens(1 + (state >> 40) % 40, vocabulary=255, seed=state)
        found.append([1 + token for token in walk] + [EOD])
    return found


def write_llmc(path, tokens):
    header = [20240520, 1, len(tokens)] + [0] * 253
    path.write_bytes(struct.pack("<256i", *header) + array("H", tokens).tobytes())
    return path


def write_megatron(prefix, docs):
    """One sequence per document, as Megatron-LM's preprocessing leaves them."""
    prefix.with_suffix(".bin").write_bytes(b"".join(array("H", doc).tobytes() for doc in docs))
    starts = [2 * sum(len(doc) for doc in docs[:i]) for i in range(len(docs))]
    prefix.with_suffix(".idx").write_bytes(
        b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(docs), len(docs) + 1)
        + struct.pack(f"<{len(docs)}i", *map(len, docs)) + struct.pack(f"<{len(docs)}q", *starts)
        + struct.pack(f"<{len(docs) + 1}q", *range(len(docs) + 1)))
    return prefix


class Data(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = trivet.new_folder()
        cls.docs = documents(80)
        cls.tokens = [token for doc in cls.docs for token in doc]
        cls.plain = trivet.write_tokens(cls.folder / "plain.u16", cls.tokens)
        cls.other = trivet.write_tokens(cls.folder / "other.u16", [t for d in documents(40, seed=7) for t in d])

    def ids_of(self, data, **changes):
        log = trivet.new_folder() / "ids"
        trivet.train(data, log_sample_ids=log, **dict(SMALL, **changes))
        return [json.loads(line)["samples"] for line in log.read_text().splitlines()]

    def test_peers_files_are_the_same_tokens(self):
        want = trivet.train(self.plain, **SMALL).losses()
        self.assertEqual(want, trivet.train(write_llmc(self.folder / "a.bin", self.tokens), **SMALL).losses())
        self.assertEqual(want, trivet.train(write_megatron(self.folder / "m", self.docs), **SMALL).losses())

    def test_a_shard_is_read_again_epoch_after_epoch(self):
        shard = write_llmc(self.folder / "short.bin", self.tokens[: 10 * 16 + 1])
        read = [i for step in self.ids_of(shard, train_iters=5) for i in step]  # 40 samples of 10
        epochs = [read[i : i + 10] for i in range(0, 40, 10)]
        self.assertEqual([sorted(epoch) for epoch in epochs], [list(range(10))] * 4)
        self.assertEqual(len({tuple(epoch) for epoch in epochs}), 4)
        self.assertEqual(read, [i for step in self.ids_of(shard, train_iters=5, dp=2, pp=2) for i in step])

    def test_documents_are_the_same_on_every_mesh(self):
        meshes = [dict(dp=2), dict(pp=2, tp=2, schedule="1f1b"), dict(pp=2, schedule="zb-h1"),
                  dict(tp=2, sequence_parallel=True), dict(pp=2, vpp=2, recompute="full"),
                  dict(recompute="selective"), dict(micro_batch_size=4), dict(micro_batch_size=2, dp=2, pp=2)]
        for family in (dict(), GPT2):
            flags = dict(SMALL, **RESETS, **family, valid_data=self.other)
            want = trivet.train(self.plain, **flags)
            for mesh in meshes:
                with self.subTest(family=family, mesh=mesh):
                    got = trivet.train(self.plain, **flags, **mesh)
                    for a, b in zip(want.steps, got.steps, strict=True):
                        self.assertEqual(a["counted_tokens"], b["counted_tokens"])
                        self.assertAlmostEqual(a["loss"], b["loss"], delta=2e-5 * a["loss"])
                        self.assertAlmostEqual(a["grad_norm"], b["grad_norm"], delta=2e-4 * a["grad_norm"])
                    self.assertAlmostEqual(want.evals[0]["loss"], got.evals[0]["loss"], delta=2e-5)

    def test_each_reset_changes_the_loss_and_the_mask_its_count(self):
        flags = dict(SMALL, train_iters=1, eod_token=EOD)
        plain = trivet.train(self.plain, **flags)
        self.assertEqual(plain.steps[0]["counted_tokens"], 8 * 16)
        masked = trivet.train(self.plain, **flags, eod_mask_loss=True, shuffle="off")
        self.assertEqual(masked.steps[0]["counted_tokens"], sum(t != EOD for t in self.tokens[:128]))
        losses = {plain.losses()[0]}
        for reset in ("reset_position_ids", "reset_attention_mask"):
            losses.add(trivet.train(self.plain, **flags, **{reset: True}).losses()[0])
        self.assertEqual(len(losses), 3)

    def test_a_document_in_a_row_of_others_is_as_if_alone(self):
        """With all resets, samples of one document each and samples of several give the same sums."""
        docs = [doc[:7] + [EOD] for doc in documents(400, seed=3) if len(doc) > 8][:128]
        packed = trivet.write_tokens(self.folder / "packed.u16", [t for d in docs for t in d] + [EOD])
        flags = dict(SMALL, shuffle="off", train_iters=1, **RESETS)
        together = trivet.train(packed, **flags)
        apart = trivet.train(packed, **dict(flags, global_batch_size=16), samples_cross_documents="off")
        self.assertEqual(together.steps[0]["counted_tokens"], 16 * 7)
        self.assertEqual(apart.steps[0]["counted_tokens"], 16 * 7)
        self.assertAlmostEqual(together.losses()[0], apart.losses()[0], places=5)
        self.assertAlmostEqual(together.norms()[0], apart.norms()[0], delta=1e-4 * apart.norms()[0])

    def test_blends_are_exact_and_the_same_on_every_mesh(self):
        data = [f"{self.plain}:0.25", f"{self.other}:0.75"]
        num = (len(self.tokens) - 1) // 16
        want = self.ids_of(data, train_iters=5)
        self.assertEqual(sum(i < num for step in want for i in step), 10)
        for mesh in (dict(dp=2), dict(pp=2, micro_batch_size=2), dict(dp=4)):
            self.assertEqual(want, self.ids_of(data, train_iters=5, **mesh))

    def test_validation_files_are_reported_each_and_together(self):
        both = trivet.train(self.plain, valid_data=[self.plain, self.other], eval_interval=2, **SMALL).evals
        first = trivet.train(self.plain, valid_data=self.plain, eval_interval=2, **SMALL).evals
        second = trivet.train(self.plain, valid_data=self.other, eval_interval=2, **SMALL).evals
        self.assertEqual([e["step"] for e in both], [2, 3])
        for all_, a, b in zip(both, first, second, strict=True):
            self.assertEqual([f["loss"] for f in all_["files"]], [a["loss"], b["loss"]])
            self.assertEqual([Path(f["file"]) for f in all_["files"]], [self.plain, self.other])
            count = a["counted_tokens"] + b["counted_tokens"]
            self.assertEqual(all_["counted_tokens"], count)
            mean = (a["loss"] * a["counted_tokens"] + b["loss"] * b["counted_tokens"]) / count
            self.assertAlmostEqual(all_["loss"], mean, places=12)

    def test_refusals(self):
        cases = [(2, "--eod-token", dict(eod_mask_loss=True)), (2, "--eod-token", dict(reset_position_ids=True)),
                 (2, "beyond the vocabulary", dict(eod_token=256)), (2, "on, off", dict(samples_cross_documents="x")),
                 (2, "--eod-token", dict(samples_cross_documents="off")),
                 (2, "a weight", dict(data=[f"{self.plain}:1", self.other])),
                 (3, "does not begin", dict(data_format="llmc"))]
        for code, part, changes in cases:
            with self.subTest(**changes):
                flags = trivet.small_flags(dict(dict(SMALL, data=self.plain), **changes))
                result = trivet.run(trivet.new_folder(), flags)
                self.assertEqual(result.code, code, result.err)
                self.assertIn(part, result.err)


if __name__ == "__main__":
    unittest.main()
