#!/usr/bin/env bash
# A training of 8 ranks over the hosts of a file, with MPICH's mpiexec: 2 stages x 2 replicas x 2 tensor ranks.
# Usage: mpirun.sh HOSTFILE CORPUS [further flags of trivet train]
# HOSTFILE has a line HOST:RANKS for each host, such as node0:4; without :RANKS the ranks go round the hosts.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }

# UCX_NET_DEVICES=eth0 and -iface eth0 choose a network where hosts have several.
exec mpiexec -f "$1" -n 8 -bind-to core:1 \
    "${TRIVET:-trivet}" train --pp 2 --dp 2 --tp 2 --threads 1 --preset tiny-llama \
    --data "$2" --global-batch-size 32 --micro-batch-size 4 --lr 3e-3 --train-iters 1000 \
    --metrics trivet.jsonl "${@:3}"
