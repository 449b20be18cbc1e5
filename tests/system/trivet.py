"""Runs the trivet program for the system tests: small models, metrics, exports, token files."""
import json
import math
import os
import struct
import subprocess
import tempfile
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


def train(data, pp=1, dp=1, tp=1, mpi=False, **changes):
    """The small model on a mesh; underscores in names stand for dashes. Fails the test unless it exits with 0."""
    folder = tempfile.mkdtemp(prefix="trivet-test-")
    flags = dict(SMALL, data=data, pp=pp, tp=tp)
    flags.update({name.replace("_", "-"): value for name, value in changes.items()})
    result = run(folder, flags, ranks=pp * dp * tp, mpi=mpi)
    if result.code != 0:
        raise AssertionError(f"exit {result.code}: {result.out}\n{result.err}")
    return result


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


def relative(a, b):
    return abs(a - b) / max(abs(b), 1e-30) if math.isfinite(a) else math.inf
