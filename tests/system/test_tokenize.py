"""trivet tokenize against an encoder written here from the definition of byte-pair encoding, against Hugging Face's
and SentencePiece's own where they are installed, and through training."""
import json
import random
import re
import shutil
import struct
import subprocess
import unittest
from array import array
from collections import Counter

import trivet

LETTER, NUMBER, OTHER = r"[^\W\d_]", r"\d", r"(?:[^\s\w]|_)"  # of the characters below, as \p{L}, \p{N} and the rest
GPT2 = re.compile(rf"'s|'t|'re|'ve|'m|'ll|'d| ?{LETTER}+| ?{NUMBER}+| ?{OTHER}+|\s+(?!\S)|\s+")
LLAMA3 = re.compile(rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\r\n\w]|_)?{LETTER}+|{NUMBER}{{1,3}}| ?{OTHER}+[\r\n]*"
                    r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_TEXT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIALS = ["<|endoftext|>", "<|end|>", "<|end|>x"]
SAMPLE = ("The quick brown fox doesn't jump over 12345 lazy dogs; the dog's bark, the THE the.\n"
          "Größe, naïve façades and 漢字かな: 67.89 €!\n\n\tif (the_end) {\n        return the_fox;\n    }\n") * 3


def byte_characters():
    """GPT-2's bytes_to_unicode, as its paper's code has it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, free = {b: chr(b) for b in plain}, 256
    for b in range(256):
        if b not in table:
            table[b] = chr(free)
            free += 1
    return table


CHARACTERS = byte_characters()


def spell(word):
    return [CHARACTERS[b] for b in word.encode()]


def merge(symbols, left, right):
    out, i = [], 0
    while i < len(symbols):
        if symbols[i : i + 2] == [left, right]:
            out.append(left + right)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Bpe:
    """Merges by frequency; encoding by the usual loop over ranks, word by word."""

    def __init__(self, pattern, num_merges, whole=()):
        self.pattern, self.ignore_merges = pattern, bool(whole)
        words = Counter(pattern.findall(SAMPLE))
        spelled, self.merges = {w: spell(w) for w in words}, []
        for _ in range(num_merges):
            pairs = Counter()
            for word, times in words.items():
                for pair in zip(spelled[word], spelled[word][1:]):
                    pairs[pair] += times
            if not pairs:
                break
            best = max(pairs, key=lambda p: (pairs[p], p))
            self.merges.append(best)
            spelled = {w: merge(s, *best) for w, s in spelled.items()}
        tokens = [CHARACTERS[b] for b in range(256)] + ["".join(m) for m in self.merges]
        tokens = list(dict.fromkeys(tokens + ["".join(spell(word)) for word in whole]))  # these no merges make
        self.vocab = {token: len(tokens) - 1 - i for i, token in enumerate(tokens)}
        self.specials = {text: len(tokens) + i for i, text in enumerate(SPECIALS)}

    def write(self, path, pairs=False, **changes):
        step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                "use_regex": self.pattern is GPT2}
        split = {"type": "Split", "pattern": {"Regex": LLAMA3_TEXT}, "behavior": "Isolated", "invert": False}
        file = {"version": "1.0", "normalizer": None,
                "pre_tokenizer": step if self.pattern is GPT2 else {"type": "Sequence", "pretokenizers": [split, step]},
                "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                                  "normalized": False, "special": True} for t, i in self.specials.items()],
                "model": {"type": "BPE", "dropout": None, "unk_token": None, "ignore_merges": self.ignore_merges,
                          "vocab": self.vocab, "merges": [list(m) if pairs else " ".join(m) for m in self.merges]}}
        for name, value in changes.items():
            at = file
            for part in name.split("__")[:-1]:
                at = at[int(part) if part.isdigit() else part]
            at[name.split("__")[-1]] = value
        path.write_text(json.dumps(file))
        return path

    def encode_word(self, word):
        symbols = spell(word)
        if self.ignore_merges and "".join(symbols) in self.vocab:
            return [self.vocab["".join(symbols)]]
        for left, right in self.merges:
            symbols = merge(symbols, left, right)
        return [self.vocab[s] for s in symbols]

    def encode(self, text):
        ids = []
        for part in re.split("(" + "|".join(map(re.escape, sorted(SPECIALS, key=len, reverse=True))) + ")", text):
            if part in self.specials:
                ids.append(self.specials[part])
            else:
                ids += [i for word in self.pattern.findall(part) for i in self.encode_word(word)]
        return ids


def texts():
    pool = [*"abtheZ  \n\n\r\t'.,!0123456789éßñ漢字かな😀\u00a0\u2003_-<|>", *SPECIALS, " the", "  the", "don't", "'S",
            "'LL", "   ", "\n \n"]
    rnd = random.Random(3)
    many = " ".join(chr(97 + i % 26) + chr(97 + i // 26 % 26) + chr(97 + i // 676) for i in range(3000))
    return [SAMPLE, many, "", "a" * 3000, " " * 99 + "x", "\n" * 99] + [
        "".join(rnd.choices(pool, k=rnd.randrange(1, 50))) for _ in range(400)]


def tokenize(expect=0, **flags):
    words = []
    for name, value in flags.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += ["--" + name.replace("_", "-"), *map(str, values)]
    run = subprocess.run([trivet.BINARY, "tokenize", *words], capture_output=True, timeout=60)
    if run.returncode != expect:
        raise AssertionError(f"exit {run.returncode}: {run.stdout}\n{run.stderr}")
    return run.stderr.decode(errors="replace") if expect else run.stdout.decode()


def read_ids(path, code="H"):
    return array(code, path.read_bytes()).tolist()


def read_megatron(prefix):
    """The documents of a pair, read by the format's description."""
    index = prefix.with_suffix(".idx").read_bytes()
    version, code, n, m = struct.unpack("<QBQQ", index[9:34])
    assert index[:9] == b"MMIDIDX\0\0" and version == 1 and m == n + 1
    lengths = struct.unpack(f"<{n}i", index[34 : 34 + 4 * n])
    pointers = struct.unpack(f"<{n}q", index[34 + 4 * n : 34 + 12 * n])
    assert struct.unpack(f"<{m}q", index[34 + 12 * n :]) == tuple(range(m))
    width, data = {8: 2, 4: 4}[code], prefix.with_suffix(".bin").read_bytes()
    return [array("H" if width == 2 else "I", data[p : p + width * k]).tolist() for p, k in zip(pointers, lengths)]


class Tokenize(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = trivet.new_folder()
        cls.jsonl = cls.folder / "docs.jsonl"
        cls.jsonl.write_text("".join(json.dumps({"id": 1, "text": t}) + "\n" for t in texts()) + "\n")
        cls.kinds = {"gpt2": Bpe(GPT2, 60), "llama3": Bpe(LLAMA3, 60), "whole": Bpe(LLAMA3, 20, (" fox", " lazy"))}
        cls.files = {k: b.write(cls.folder / f"{k}.json", pairs=k == "whole") for k, b in cls.kinds.items()}

    def test_documents_encode_as_the_definition_says(self):
        for kind, bpe in self.kinds.items():
            with self.subTest(kind):
                out = self.folder / kind
                tokenize(input=self.jsonl, output=out, tokenizer=self.files[kind], output_format="megatron",
                         append_eod=True, eod_token="<|end|>")
                self.assertEqual(read_megatron(out), [bpe.encode(t) + [bpe.specials["<|end|>"]] for t in texts()])

    def test_a_long_text_is_cut_where_nothing_changes(self):
        lines = [line for _ in range(40) for line in texts() if len(line) < 1000]
        text = "\n\n".join(lines)[:3_300_000]
        long = self.folder / "long.txt"
        long.write_bytes((text * (1 + 3_300_000 // len(text))).encode())
        for kind in ("gpt2", "llama3"):
            whole = {}
            for threads in (1, 3):
                out = self.folder / "long.u16"
                tokenize(input=long, output=out, tokenizer=self.files[kind], threads=threads)
                whole[threads] = out.read_bytes()
            self.assertEqual(whole[1], whole[3])
            line = self.folder / "long.jsonl"  # one document is never cut
            line.write_text(json.dumps({"text": long.read_bytes().decode()}))
            tokenize(input=line, output=self.folder / "line.u16", tokenizer=self.files[kind])
            self.assertEqual(whole[1], (self.folder / "line.u16").read_bytes())

    def test_huggingface_agrees(self):
        try:
            import tokenizers
        except ImportError:
            self.skipTest("the package tokenizers is not installed")
        for kind, path in self.files.items():
            peer = tokenizers.Tokenizer.from_file(str(path))
            out = self.folder / f"peer-{kind}"
            tokenize(input=self.jsonl, output=out, tokenizer=path, output_format="megatron")
            want = [peer.encode(t, add_special_tokens=False).ids for t in texts()]
            self.assertEqual(read_megatron(out), want)

    def test_sentencepiece_agrees_with_its_own_program(self):
        module = trivet.BINARY.replace("/trivet", "/libtrivet_sentencepiece.so")
        if shutil.which("spm_train") is None or not trivet.Path(module).exists():
            self.skipTest("SentencePiece's programs, or a build with its library, are not here")
        text, model = self.folder / "sample.txt", self.folder / "m"
        text.write_text(SAMPLE * 20)
        subprocess.run(["spm_train", f"--input={text}", f"--model_prefix={model}", "--vocab_size=90",
                        "--character_coverage=1", "--model_type=bpe", "--hard_vocab_limit=false"],
                       check=True, capture_output=True)
        lines = [line for line in SAMPLE.splitlines() if line.strip()]
        docs = self.folder / "lines.jsonl"
        docs.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        tokenize(input=docs, output=self.folder / "spm", output_format="megatron", tokenizer=f"{model}.model",
                 append_eod=True, eod_token="</s>")
        peer = subprocess.run(["spm_encode", f"--model={model}.model", "--output_format=id"], input="\n".join(lines),
                              capture_output=True, text=True, check=True)
        want = [[*map(int, line.split()), 2] for line in peer.stdout.splitlines()]
        self.assertEqual(read_megatron(self.folder / "spm"), want)

    def test_every_format_trains_alike(self):
        small = dict(num_layers=4, hidden_size=32, ffn_hidden_size=64, seq_length=16, train_iters=2, data_format="auto",
                     vocab_size=1003)
        losses = set()
        for name, form in (("a.u16", "u16"), ("a.u32", "u32"), ("a.bin", "llmc"), ("pair", "megatron")):
            tokenize(input=self.jsonl, output=self.folder / name, output_format=form, tokenizer=self.files["gpt2"])
            losses.add(tuple(trivet.train(self.folder / name, **small).losses()))
        self.assertEqual(len(losses), 1)
        wide = self.kinds["gpt2"].write(self.folder / "wide.json", added_tokens__0__id=119546)
        tokenize(input=self.jsonl, output=self.folder / "w.bin", output_format="llmc", tokenizer=wide)
        header = read_ids(self.folder / "w.bin", "I")[:3]
        self.assertEqual(header[:2], [20240801, 7])
        self.assertIn(119546, read_ids(self.folder / "w.bin", "I")[256:])

    def test_bytes(self):
        a, b = self.folder / "a.dat", self.folder / "b.dat"
        a.write_bytes(b"ab\xff")
        b.write_bytes(b"")
        tokenize(input=[a, b, a], output=self.folder / "bytes.u16", append_eod=True, eod_token=256)
        self.assertEqual(read_ids(self.folder / "bytes.u16"), [97, 98, 255, 256, 256, 97, 98, 255, 256])
        tokenize(input=a, output=self.folder / "plain.u16")
        self.assertEqual(read_ids(self.folder / "plain.u16"), [97, 98, 255])

    def test_refusals(self):
        bad = self.folder / "bad.txt"
        bad.write_bytes(b"good \xff")
        line = self.folder / "bad.jsonl"
        line.write_text('{"text": "x"}\n{"text": 3}\n')
        gpt2, out = self.kinds["gpt2"], self.folder / "refused"
        files = {"model.type": dict(model__type="WordPiece"), "model.unk_token": dict(model__unk_token="<unk>"),
                 "model.byte_fallback": dict(model__byte_fallback=True), "normalizer": dict(normalizer={"type": "NFC"}),
                 "pre_tokenizer": dict(pre_tokenizer={"type": "Whitespace"}),
                 "add_prefix_space": dict(pre_tokenizer__add_prefix_space=True),
                 "\\u2581the": dict(model__vocab={"\u2581the": 1}), "byte 0": dict(model__vocab={"a": 1}),
                 "added_tokens[1].lstrip": dict(added_tokens__1__lstrip=True)}
        for part, changes in files.items():
            with self.subTest(part):
                path = gpt2.write(self.folder / "refused.json", **changes)
                said = tokenize(expect=2, input=self.jsonl, output=out, tokenizer=path)
                self.assertIn(part.replace("\\u2581", "\u2581"), said)
        regex = self.kinds["llama3"].write(self.folder / "r.json",
                                           pre_tokenizer__pretokenizers__0__pattern={"Regex": r"\w+"})
        wide = gpt2.write(self.folder / "wide.json", added_tokens__0__id=65536)
        merges = gpt2.write(self.folder / "merges.json", model__merges=["zz qq"])
        ids = gpt2.write(self.folder / "ids.json", model__vocab=dict(gpt2.vocab, e=-1))
        cases = [(2, "Regex", dict(tokenizer=regex)), (2, "16 bits", dict(tokenizer=wide, output_format="u16")),
                 (3, "model.merges[0]", dict(tokenizer=merges)), (3, 'the id of "e"', dict(tokenizer=ids)),
                 (3, "byte 5 is not UTF-8", dict(tokenizer=self.files["gpt2"], input=bad)),
                 (3, "byte 14", dict(input=line)), (3, "absent", dict(input=self.folder / "absent")),
                 (2, "--eod-token", dict(append_eod=True)), (2, "neither", dict(append_eod=True, eod_token="<x>")),
                 (2, "jsonl", dict(input_format="x")), (2, "--output-format x", dict(output_format="x")),
                 (2, "text is", dict(output_format="text"))]
        for code, part, changes in cases:
            with self.subTest(part):
                said = tokenize(expect=code, **dict(dict(input=self.jsonl, output=out), **changes))
                self.assertIn(part, said)
        self.assertFalse(list(self.folder.glob("refused*tmp*")) or out.exists())


if __name__ == "__main__":
    unittest.main()
