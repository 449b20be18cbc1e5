#!/usr/bin/env python3
"""Checks the structure of the sources: layers, foreign headers, file and function sizes.

check.py --symbols LIBRARY checks instead that every symbol which a shared library exports starts with tv_."""
import re
import subprocess
import sys
from pathlib import Path

# A folder may include those named behind it, and itself.
LAYERS = {
    "base": [],
    "mesh": ["base"],
    "kernels": ["base"],
    "tensor": ["mesh", "kernels", "base"],
    "data": ["mesh", "kernels", "base"],
    "pipeline": ["mesh", "kernels", "base"],
    "model": ["tensor", "data", "pipeline", "mesh", "kernels", "base"],
    "train": ["model", "tensor", "data", "pipeline", "mesh", "kernels", "base"],
}
# A foreign header may be included only by files that match.
FOREIGN = {
    "mpi.h": r"^mesh/comm_mpi[._]|^tests/|^examples/",
    "cuda_runtime.h": r"_cuda\.(cu|h)$|^kernels/(cuda|mma)_internal\.h$|^tests/emulation/",
    "cuda.h": r"^kernels/hopper_internal\.h$|^tests/emulation/",
    "nccl.h": r"^mesh/comm_nccl_cuda\.cu$|^tests/emulation/",
    "cblas.h": r"^kernels/",
    "hwloc.h": r"^mesh/.*hwloc.*\.c$|^mesh/machine\.c$|^tests/",
    "expat.h": r"^mesh/topology_xml\.c$",
    "yaml.h": r"^mesh/topology_topograph\.c$",
    "jansson.h": r"^train/|^tests/",
    "pcre2.h": r"^train/tokenizer_bpe\.c$",
    "sentencepiece_processor.h": r"^train/sentencepiece_module\.cc$",
}
MAX_FILE, MAX_FUNCTION, MAX_COLUMNS = 500, 60, 120
LINKER_SYMBOLS = ["_init", "_fini", "_edata", "_end", "__bss_start"]
problems = []


def complain(path, line, text):
    problems.append(f"{path}:{line}: {text}")


def check_includes(path, lines):
    folder = path.split("/")[0]
    for number, line in enumerate(lines, 1):
        match = re.match(r'#include [<"]([^>"]+)[>"]', line)
        if not match:
            continue
        header = match.group(1)
        target = header.split("/")[0]
        if folder in LAYERS and target in LAYERS and target != folder and target not in LAYERS[folder]:
            complain(path, number, f"{folder}/ may not include {header}")
        if header.endswith("_internal.h") and target != folder and folder != "tests":
            complain(path, number, f"{header} is {target}/'s own")
        if header in FOREIGN and not re.search(FOREIGN[header], path):
            complain(path, number, f"{header} may not be included here")


def check_sizes(path, lines):
    if len(lines) > MAX_FILE:
        complain(path, 1, f"{len(lines)} lines, at most {MAX_FILE}")
    start = None
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS:
            complain(path, number, f"{len(line)} columns, at most {MAX_COLUMNS}")
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            if number - start - 1 > MAX_FUNCTION:
                complain(path, start, f"a function of {number - start - 1} lines, at most {MAX_FUNCTION}")
            start = None


def check_symbols(library):
    out = subprocess.run(["nm", "--dynamic", "--defined-only", library], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in out.stdout.splitlines()]
    if not any(name.startswith("tv_") for name in names):
        complain(library, 0, "exports nothing")
    for name in names:
        if not name.startswith("tv_") and name not in LINKER_SYMBOLS:
            complain(library, 0, f"{name} does not start with tv_")


def check_sources():
    names = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    for path in names:
        if not re.search(r"\.(c|h|cu|cc)$", path) or not Path(path).exists():
            continue
        lines = Path(path).read_text().split("\n")
        check_includes(path, lines)
        check_sizes(path, lines)


def main():
    if sys.argv[1:2] == ["--symbols"]:
        check_symbols(sys.argv[2])
    else:
        check_sources()
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
