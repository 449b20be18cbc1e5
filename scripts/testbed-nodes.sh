# shellcheck shell=bash
# Nodes for scripts/testbed and scripts/slurm-testbed, which source this file: network namespaces on a bridge, each with
# its own pid, ipc, mount and uts namespace.
#
# Everything lives below one process in a pid namespace of its own (the head). When that process ends, or whoever
# started it is killed, the kernel ends all others and takes bridge, links and mounts away: nothing is left to clean up.
# The head has a private tmpfs on /run, where all files of the testbed are; nothing is written elsewhere.
state=/run/testbed

die() { # exit code, words
    echo "$(basename "$0"): ${*:2}" >&2
    exit "$1"
}

need() { # program, Debian package
    command -v "$1" >/dev/null || die 77 "no $1: install the package $2"
}

need_namespaces() {
    [ "$(id -u)" -eq 0 ] || die 77 "making nodes needs root"
    need unshare util-linux
    need ip iproute2
    unshare --mount --net --pid --ipc --uts --fork --mount-proc true 2>/dev/null ||
        die 77 "this system does not let root make namespaces"
}

# Run this script again as the head, below a process that dies with this one; return with the head's exit code.
run_head() { # arguments of the head
    setpriv --pdeathsig KILL unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc \
        "$0" --head "$@" <&0 &
    local head=$! code=0
    trap 'kill -KILL $head 2>/dev/null; exit 143' TERM HUP
    trap 'kill -KILL $head 2>/dev/null; exit 130' INT
    wait "$head" || code=$?
    return "$code"
}

# The head: a bridge e0 that it can itself be reached on as 10.77.0.254, and N nodes.
make_nodes() { # N, rate
    mount -t tmpfs tmpfs /run
    mkdir "$state"
    hostname head
    {
        printf '127.0.0.1 localhost\n10.77.0.254 head\n'
        for ((i = 0; i < $1; i++)); do printf '10.77.0.%d node%d\n' $((i + 1)) "$i"; done
    } >"$state/hosts"
    mount --bind "$state/hosts" /etc/hosts
    ip link set lo up
    ip link add e0 type bridge
    ip address add 10.77.0.254/24 dev e0
    ip link set e0 up
    for ((i = 0; i < $1; i++)); do make_node "$i" "$2"; done
}

make_node() { # number, rate
    local pid ready
    exec {ready}< <(unshare --mount --net --pid --ipc --uts --fork "$0" --node "$1")
    read -r pid <&"$ready" || die 1 "node$1 could not be made"
    echo "$pid" >"$state/node$1"
    ip link add "node$1" type veth peer name e0 netns "$pid"
    ip link set "node$1" master e0 up
    shape "$2" "node$1"
    on_node "$1" ip address add "10.77.0.$(($1 + 1))/24" dev e0
    on_node "$1" ip link set e0 up
    shape "$2" e0 on_node "$1"
}

# Each end of a link sends at the given rate at most.
shape() { # rate, interface, words before the command
    [ "$1" = none ] || "${@:3}" tc qdisc add dev "$2" root tbf rate "$1" burst 256kb latency 50ms
}

# A node: process 1 of its namespaces, which says under which number the head knows it.
be_node() { # number
    local pid
    read -r pid _ </proc/self/stat
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys # UCX lists the network devices that it finds there
    mount -t tmpfs tmpfs /dev/shm
    hostname "node$1"
    ip link set lo up
    echo "$pid"
    exec sleep infinity >/dev/null
}

on_node() { # number, command
    nsenter --target "$(cat "$state/node$1")" --mount --net --pid --ipc --uts -- "${@:2}"
}
