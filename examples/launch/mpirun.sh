#!/usr/bin/env bash
# A training of 8 ranks over the hosts of a file, with MPICH's mpiexec: 2 stages x 2 replicas x 2 tensor ranks.
# Usage: mpirun.sh [--restart-on-failure N] HOSTFILE CORPUS [further flags of trivet train]
# HOSTFILE has a line HOST:RANKS for each host, such as node0:4; without :RANKS the ranks go round the hosts.
# --restart-on-failure N starts the job again, from its last checkpoint, up to N times: after a lost rank, a missed
# deadline, too little memory; not after what would only happen again, and not when it was told to stop.
set -euo pipefail
restarts=0
if [ "${1:-}" = --restart-on-failure ]; then
    restarts=${2:-}
    [[ $restarts =~ ^[0-9]+$ ]] || { echo "mpirun.sh: --restart-on-failure $restarts is not a number" >&2; exit 2; }
    shift 2
fi
[ $# -ge 2 ] || { sed -n '3,6s/^# //p' "$0" >&2; exit 2; }

# In a group of its own, so that Ctrl-C comes to it once, from here. A signal ends the wait, not the job.
set -m
told=0 interrupted=0
tell() { # signal
    told=1 interrupted=1
    kill "-$1" "$job" 2>/dev/null || true
}
trap 'tell INT' INT
trap 'tell TERM' TERM
trap 'tell USR1' USR1

# UCX_NET_DEVICES=eth0 and -iface eth0 choose a network where hosts have several.
start() { # HOSTFILE, CORPUS, flags
    mpiexec -f "$1" -n 8 -bind-to core:1 \
        "${TRIVET:-trivet}" train --pp 2 --dp 2 --tp 2 --threads 1 --preset tiny-llama \
        --data "$2" --global-batch-size 32 --micro-batch-size 4 --lr 3e-3 --train-iters 1000 \
        --save trivet-checkpoints --load auto --save-interval 100 --keep 3 --metrics trivet.jsonl "${@:3}" </dev/null &
    job=$!
    local ended=0
    while interrupted=0; wait "$job" || ended=$?; [ "$interrupted" = 1 ]; do ended=0; done
    return "$ended"
}

while :; do
    code=0
    start "$@" || code=$?
    case "$code" in
    0 | 2 | 3 | 4 | 75) exit "$code" ;; # done, refused, bad file, non-finite numbers, stopped and saved
    esac
    [ "$told" = 0 ] && [ "$restarts" -gt 0 ] || exit "$code"
    restarts=$((restarts - 1))
    echo "mpirun.sh: exit code $code; starting again from the last checkpoint, $restarts more time(s) if need be" >&2
    sleep 1
done
