"""Runs the trivet program for the system tests: small models, metrics, exports, token files, one rank as the reference."""
import json
import math
import os
import struct
import subprocess
import tempfile
import unittest
from array import array
from pathlib import Path

BINARY = os.environ["TRIVET_BINARY"]
MPIEXEC = os.environ.get("TRIVET_MPIEXEC", "mpiexec")

# The small model of the tests: a flag of a test replaces the one here.
SMALL = {
    "model": "llama", "num-layers": 4, "hidden-size": 64, "num-attention-heads": 4, "ffn-hidden-size": 256,
    "vocab-size": 256, "seq-length": 32, "global-batch-size": 16, "lr": 1e-3, "adam-eps": 1e-6, "clip-grad": 0,
    "train-iters": 10, "data-format": "u16", "untie-embeddings-and-output-weights": True, "threads": 1,
}

# A smaller one of eight layers, for many runs.
TINY = {"num_layers": 8, "hidden_size": 32, "ffn_hidden_size": 64, "seq_length": 16, "global_batch_size": 8,
        "train_iters": 5}

ONE_CHUNK = ["naive", "gpipe", "1f1b", "zb-h1", "zb-h2"]
V_PLACEMENT = ["zb-v", "v-half", "v-min", "dualpipe-v"]
TWO_CHUNKS = ["interleaved"] + V_PLACEMENT
SCHEDULES = ONE_CHUNK + TWO_CHUNKS

# Flags that say how to train, and change no number.
HOW = {"schedule", "vpp", "recompute", "partition", "stage_layout", "load_profile", "micro_batch_size", "mpi",
       "sequence_parallel", "zero_stage", "zero_group_size", "tp_comm_overlap", "no_overlap_grad_reduce"}

scratch = tempfile.TemporaryDirectory(prefix="trivet-test-")


def new_folder():
    """A new folder, which goes away when the tests end."""
    return Path(tempfile.mkdtemp(dir=scratch.name))


class Result:
    def __init__(self, process, folder):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        metrics = Path(folder) / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        self.records = [json.loads(line) for line in lines if line.strip()]
        self.steps = [r for r in self.records if r["type"] == "step"]
        self.evals = [r for r in self.records if r["type"] == "eval"]
        self.pipeline = next((r for r in self.records if r["type"] == "pipeline"), None)
        self.folder = Path(folder)

    def losses(self):
        return [s["loss"] for s in self.steps]

    def norms(self):
        return [s["grad_norm"] for s in self.steps]


def command(flags, ranks=1, mpi=False):
    words = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words += [f"--{name}", str(value)]
    start = [MPIEXEC, "-n", str(ranks), BINARY, "train"] if mpi else [BINARY, "train"]
    if not mpi and ranks > 1:
        words += ["--local-ranks", str(ranks)]
    return start + words


def run(folder, flags, ranks=1, mpi=False, timeout=120):
    """Train with exactly these flags; metrics go to folder/metrics.jsonl unless the flags say otherwise."""
    flags = dict(flags)
    if "metrics" not in flags and not flags.get("dry-run"):
        flags["metrics"] = Path(folder) / "metrics.jsonl"
    process = subprocess.run(command(flags, ranks, mpi), capture_output=True, text=True, timeout=timeout,
                             stdin=subprocess.DEVNULL)
    return Result(process, folder)


def small_flags(changes):
    return dict(SMALL, **{name.replace("_", "-"): value for name, value in changes.items()})


def train(data, pp=1, dp=1, tp=1, mpi=False, **changes):
    """The small model on a mesh; underscores in names stand for dashes. Fails the test unless it exits with 0."""
    flags = dict(small_flags(changes), data=data, pp=pp, tp=tp)
    result = run(new_folder(), flags, ranks=pp * dp * tp, mpi=mpi)
    if result.code != 0:
        raise AssertionError(f"exit {result.code}: {result.out}\n{result.err}")
    return result


def plan(**changes):
    """What --dry-run says of the small model with these changes. Fails the test unless it exits with 0."""
    result = run(scratch.name, dict(small_flags(changes), **{"dry-run": True, "json": True}))
    if result.code != 0:
        raise AssertionError(f"exit {result.code}: {result.out}\n{result.err}")
    return json.loads(result.out)


def stage_memory(dry):
    """Bytes by kind of each stage: they stand with its first chunk."""
    return [chunk["memory_bytes_per_rank"] for chunk in dry["stages"] if chunk["chunk"] == 0]


def layer_map(dry):
    """Layers by position, in model order."""
    return [chunk["layers"] for chunk in sorted(dry["stages"], key=lambda chunk: chunk["position"])]


def write_tokens(path, tokens, code="H"):
    with open(path, "wb") as file:
        array(code, tokens).tofile(file)
    return path


def walk_tokens(count, vocabulary=256, seed=1):
    """A learnable stream: a noisy walk through the vocabulary."""
    tokens, t, state = [], 0, seed
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        t = (t * 5 + 3 + (state >> 60) % 2) % vocabulary
        tokens.append(t)
    return tokens


def read_safetensors(path):
    data = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = array("f")
            values.frombytes(data[8 + size + begin : 8 + size + end])
            tensors[name] = (entry["shape"], values)
    return tensors


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * len(values)]}
        offset += 4 * len(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(values.tobytes())


def worst_difference(a, b):
    """Largest absolute difference between two sets of tensors with the same names and shapes."""
    assert set(a) == set(b), set(a) ^ set(b)
    worst = 0.0
    for name in a:
        assert a[name][0] == b[name][0], name
        worst = max([worst] + [abs(x - y) for x, y in zip(a[name][1], b[name][1])])
    return worst


def without_warnings(text):
    """What a run said besides trivet's own warnings, as that more ranks than cores share them."""
    return "".join(line for line in text.splitlines(True) if not line.startswith("trivet: warning:"))


def assert_refused(test, result, code, words):
    """It ended with this code, said nothing on standard output and one sentence with these words beside it."""
    test.assertEqual(result.returncode, code, result.stdout + result.stderr)
    test.assertEqual(result.stdout, "")
    lines = [line for line in result.stderr.splitlines() if line.startswith("trivet:")]
    test.assertEqual(len(lines), 1, result.stderr)
    for word in words if isinstance(words, list) else [words]:
        test.assertIn(word, lines[0])


def relative(a, b):
    return abs(a - b) / max(abs(b), 1e-30) if math.isfinite(a) else math.inf


class Training(unittest.TestCase):
    """Tests that hold runs on a mesh against the same training on one rank."""

    model = {}  # flags of all runs of the class

    @classmethod
    def setUpClass(cls):
        cls.folder = new_folder()
        cls.data = write_tokens(cls.folder / "walk.u16", walk_tokens(16 * 32 * 12 + 1))
        cls.references = {}

    def train(self, **flags):
        return train(**({"data": self.data} | self.model | flags))

    def train_and_export(self, **flags):
        """Training with the bytes of the weights at its end, as `export`."""
        out = new_folder()
        result = self.train(export_hf=out, **flags)
        result.export = out / "model.safetensors"
        return result

    def reference(self, **changes):
        """One rank, under none of the flags that only say how to train."""
        what = {name: value for name, value in changes.items() if name not in HOW}
        key = repr(sorted(what.items()))
        if key not in self.references:
            self.references[key] = self.train_and_export(**what)
            self.references[key].weights = read_safetensors(self.references[key].export)
        return self.references[key]

    def assert_same(self, got, want):
        self.assertEqual(len(got.steps), len(want.steps))
        for a, b in zip(got.steps, want.steps):
            self.assertLess(relative(a["loss"], b["loss"]), 2e-6)
            self.assertLess(relative(a["grad_norm"], b["grad_norm"]), 2e-5)
            self.assertEqual(a["counted_tokens"], b["counted_tokens"])
            self.assertEqual(a["consumed_samples"], b["consumed_samples"])
        self.assertEqual([e["step"] for e in got.evals], [e["step"] for e in want.evals])
        for a, b in zip(got.evals, want.evals):
            self.assertLess(relative(a["loss"], b["loss"]), 2e-6)
            self.assertEqual(a["counted_tokens"], b["counted_tokens"])

    def assert_same_bits(self, got, want):
        self.assertEqual(got.losses(), want.losses())
        self.assertEqual(got.norms(), want.norms())
        self.assertEqual(got.export.read_bytes(), want.export.read_bytes())

    def check_mesh(self, pp=1, dp=1, tp=1, **changes):
        with self.subTest(pp=pp, dp=dp, tp=tp, **changes):
            want = self.reference(**changes)
            got = self.train_and_export(pp=pp, dp=dp, tp=tp, **changes)
            self.assert_same(got, want)
            self.assertLess(worst_difference(read_safetensors(got.export), want.weights), 1e-4)
