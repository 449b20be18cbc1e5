#!/usr/bin/env python3
"""A job of three ranks that loses one ends by itself, soon, and not with success.

usage: test_lost_rank.py MPIEXEC LOST_RANK_PROGRAM"""
import subprocess
import sys
import time

SOON_SECONDS = 30


def run(mpiexec, program, how, timeout_seconds):
    started = time.monotonic()
    done = subprocess.run([mpiexec, "-n", "3", program, how, str(timeout_seconds)],
                          capture_output=True, text=True, timeout=3 * SOON_SECONDS)
    seconds = time.monotonic() - started
    print(f"{how}: exit {done.returncode} after {seconds:.1f} s\n{done.stderr}")
    assert done.returncode != 0, how
    assert seconds < SOON_SECONDS, how
    return done.stderr


def main():
    mpiexec, program = sys.argv[1:]
    run(mpiexec, program, "kill", 3 * SOON_SECONDS)  # the launcher notices, long before the deadline
    for how in ("stop", "sleep"):
        said = run(mpiexec, program, how, 1)
        for rank in (0, 2):
            sentence = f"data axis, rank {rank}: all_reduce of 10000 elements: no answer from rank 1 in 1 s (while: step 3)"
            assert sentence in said, sentence


if __name__ == "__main__":
    main()
