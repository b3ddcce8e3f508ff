#!/usr/bin/env bash
# A real, throw-away SLURM cluster of virtual nodes on this one machine, without systemd.
#
#   cluster.sh up [NODES]   start munged, slurmctld and NODES slurmd (default 4)
#   cluster.sh down         stop exactly what "up" started (jobs included)
#   cluster.sh env          print what to export (SLURM_CONF, MPI settings)
#   cluster.sh crash NODE   kill a virtual node, every process on it included
#   cluster.sh boot NODE    start that node again
#   cluster.sh hurry        let requeued jobs start in 2 s rather than in 2 min
#
# Use it:   cluster.sh up 4 && eval "$(cluster.sh env)" && sbatch slurm/run.sbatch jobs/pi.py
#
# "up" is idempotent: it does nothing if all is up; otherwise (another number of nodes, something dead) it
# starts afresh, which loses the queue.  Run by root on Debian, it installs the packages if they are missing.
#
# Two ways to run the virtual nodes n1..nN:
#   namespaces  (root with CAP_SYS_ADMIN) each slurmd is in its own PID, UTS, IPC and mount namespace: it
#       has its own hostname (n1, n2, ...), processes and /dev/shm, and "crash" takes a whole node away at
#       once, as a power cut would.  All other files (/tmp, /home, ...), network and CPUs are shared.
#   plain       (anything else, also non-root) all slurmd share the host's name and processes.
#
# Settings (environment):
#   CLUSTER_DIR    private directory: config, state, logs   [/tmp/mpims-cluster]
#   CLUSTER_CPUS   CPUs that each node claims (may exceed the real ones)     [4]
#   CLUSTER_PORT   slurmctld's port; node i uses PORT+i                  [17817]
#   CLUSTER_NS     auto | yes | no: namespaces                            [auto]
#   CLUSTER_WAIT   seconds to wait for all nodes to be idle                 [60]

set -euo pipefail
umask 022

DIR=$(readlink -m -- "${CLUSTER_DIR:-/tmp/mpims-cluster}")
CPUS=${CLUSTER_CPUS:-4}
PORT=${CLUSTER_PORT:-17817}
NS=${CLUSTER_NS:-auto}
WAIT=${CLUSTER_WAIT:-60}
INSTALL_S=120                   # apt-get update, and again apt-get install, may take so long
SELF=$(readlink -f "$0")
export PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$DIR/slurm.conf
MARK=$DIR/.mpims-cluster          # a directory without this file is not ours

say() { printf 'cluster: %s\n' "$*" >&2; }
die() {
    say "error: $*"
    [ -z "${STARTING:-}" ] || { STARTING=; do_down; }     # leave nothing half up
    exit 1
}

skip() { # what this machine lacks: tests are skipped, with these words
    say "$*"
    exit 77
}

# ---------------------------------------------------------------- processes --
# run/NAME.pid holds "PID STARTTIME".  The start time (field 22 of
# /proc/PID/stat) makes sure that a recycled PID is never taken for ours.

starttime() { # PID -> its start time; fails if there is no such live process
    local s
    s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    s=${s##*) }                       # drop "PID (comm) ": comm may hold spaces
    # shellcheck disable=SC2086
    set -- $s
    [ "$1" != Z ] && [ "$1" != X ] && echo "${20}"
}

alive() { # NAME -> true while the process recorded for it lives; sets PID
    local start
    { read -r PID start <"$DIR/run/$1.pid"; } 2>/dev/null || return 1
    [ "$(starttime "$PID")" = "$start" ]
}

launch() { # NAME COMMAND... : start a daemon in a session of its own
    local name=$1 pid start
    shift
    # A daemon must not keep the caller's descriptors open (a CI runner waits for
    # its pipes to close), so close all but 0-2, which go to /dev/null and the log.
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
        done
        exec setsid "$@"
    ) </dev/null >"$DIR/log/$name.out" 2>&1 &
    pid=$!
    start=$(starttime "$pid") || { logtails "$name"; die "$name did not start"; }
    echo "$pid $start" >"$DIR/run/$name.pid"
}

stop() { # NAME SIGNAL SECONDS : signal, wait, then SIGKILL
    local i
    if alive "$1"; then
        kill -"$2" "$PID" 2>/dev/null || true
        for ((i = 0; i < $3 * 10; i++)); do alive "$1" || break; sleep 0.1; done
        if alive "$1"; then
            say "$1 (pid $PID) still there after $3 s: SIGKILL"
            kill -KILL "$PID" 2>/dev/null || true
            for ((i = 0; i < 50; i++)); do alive "$1" || break; sleep 0.1; done
        fi
    fi
    rm -f "$DIR/run/$1.pid"
}

logtails() { # NAME... : the end of these daemons' logs, to stderr
    local n f
    for n in "$@"; do
        f=$DIR/log/$n.log
        [ -s "$f" ] || f=$DIR/log/$n.out
        [ -s "$f" ] && { echo "--- $f"; tail -n 10 "$f"; } >&2
    done
    return 0
}

nodes() { local i; for ((i = 1; i <= ${1:-0}; i++)); do echo "n$i"; done; }
daemons() { echo munged slurmctld; nodes "$(cat "$DIR/nodes" 2>/dev/null || echo 0)"; }

# ------------------------------------------------------------------ install --
PMIXDIR=/usr/lib/$(uname -m)-linux-gnu/pmix2/lib
POLICY=/usr/sbin/policy-rc.d

install_packages() {
    local c missing='' made=''
    for c in munged slurmctld slurmd srun sinfo; do
        command -v "$c" >/dev/null || missing+=" $c"
    done
    if [ -n "$missing" ]; then
        [ "$(id -u)" = 0 ] || skip "not installed:$missing (run once as root, or: apt-get install slurmctld slurmd slurm-client munge libpmix2)"
        command -v apt-get >/dev/null || skip "not installed:$missing (and there is no apt-get)"
        say "installing packages (missing:$missing)"
        # The packages must not start their own munged/slurmd.
        if [ ! -e "$POLICY" ]; then
            printf '#!/bin/sh\nexit 101\n' >"$POLICY"
            chmod 755 "$POLICY"
            made=1
        fi
        mkdir -p "$DIR/log"
        if ! {
            timeout "$INSTALL_S" apt-get update -q &&
                DEBIAN_FRONTEND=noninteractive timeout "$INSTALL_S" apt-get install -y -q \
                    --no-install-recommends slurmctld slurmd slurm-client munge libpmix2
        } </dev/null >"$DIR/log/apt.out" 2>&1; then
            [ -z "$made" ] || rm -f "$POLICY"
            # The log goes with the directory: the reason is what counts.
            skip "not installed:$missing (apt-get: $(grep -a '^E:' "$DIR/log/apt.out" | tail -n 1 || echo "not done in $INSTALL_S s"))"
        fi
        [ -z "$made" ] || rm -f "$POLICY"
    fi
    # Debian's mpi/pmix plugin loads this exact name, which only libpmix-dev has.
    if [ -e "$PMIXDIR/libpmix.so.2" ] && [ ! -e "$PMIXDIR/libpmix.so" ] && [ -w "$PMIXDIR" ]; then
        ln -s libpmix.so.2 "$PMIXDIR/libpmix.so"
    fi
}

# ------------------------------------------------------------------- config --
# --ipc: UCX compares IPC namespaces to tell whether two ranks share memory.
# --kill-child: killing the unshare process kills the node's PID 1, hence the node.
UNSHARE=(unshare --mount --propagation slave --uts --ipc --pid --fork --kill-child --mount-proc)

can_namespace() {
    [ "$(id -u)" = 0 ] &&
        "${UNSHARE[@]}" hostname cluster-probe >/dev/null 2>&1
}

write_config() { # NODES
    local n=$1 host nodehost me mpi=none mem i
    host=$(hostname -s 2>/dev/null || hostname)
    me=$(id -un)
    mem=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    nodehost=$host
    [ "$NS" = no ] || nodehost="n[1-$n]"
    [ ! -e "$PMIXDIR/libpmix.so" ] || mpi=pmix

    # TmpFS: per node, or the PMIx servers of two nodes of one step would fight
    # over the same /tmp/spmix_appdir_UID_JOB.STEP.  Users' processes write there.
    for i in $(nodes "$n"); do
        mkdir -p "$DIR/spool/$i" "$DIR/tmp/$i"
        chmod 1777 "$DIR/tmp/$i"
    done
    # The nodes' names, for programs on them that look hosts up (MPICH's mpiexec).
    { cat /etc/hosts; for ((i = 1; i <= n; i++)); do echo "127.1.0.$i n$i"; done; } >"$DIR/hosts"
    (umask 077 && head -c 128 /dev/urandom >"$DIR/munge.key")

    cat >"$SLURM_CONF" <<EOF
# Written by cluster.sh; "up" overwrites it.
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$DIR/run/munge.socket
MpiDefault=$mpi

StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
TmpFS=$DIR/tmp/%n
SlurmctldPidFile=$DIR/run/slurmctld.daemon
SlurmdPidFile=$DIR/run/%n.daemon
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
MailProg=/bin/true

# No cgroups and no binding: the nodes claim CPUs that do not exist.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides

SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU

# No database: sacct does not work.  Finished jobs stay in "scontrol show job"
# for MinJobAge seconds, and each leaves a line in jobcomp.log.
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.log
MinJobAge=3600

# Shorter than on a real cluster, so that tests need not wait.
KillWait=5
SlurmdTimeout=15
ReturnToService=1

NodeName=n[1-$n] NodeHostname=$nodehost NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + n))] Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$mem State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES DefaultTime=60 MaxTime=INFINITE State=UP
EOF
    if [ "$n" = 1 ]; then         # "n[1-1]" is fine, "Port=[x-x]" is not
        sed -i "s/ Port=\[\([0-9]*\)-[0-9]*\]/ Port=\1/" "$SLURM_CONF"
    fi
}

# -------------------------------------------------------------------- nodes --
# The first process of a virtual node in a namespace (PID 1 there; bash reaps
# orphans).  It ends, and with it all else on the node, when slurmd ends.
node_init() { # NODE INDEX NODES
    local max step low last
    hostname "$1"
    mount --bind "$DIR/hosts" /etc/hosts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    # Give each node PIDs of a range of its own, and a rebooted one other PIDs than
    # before: PRRTE (mpirun) names its directory in the shared /tmp by PID only, and
    # fails on one that another node uses or that a crash has left behind.
    max=$(cat /proc/sys/kernel/pid_max)
    step=$((max / ($3 + 1)))
    [ "$step" -le 100000 ] || step=100000
    low=$(($2 * step))
    last=$(cat "$DIR/lastpid.$1" 2>/dev/null) || last=0
    if [ "$last" -lt $low ] || [ "$last" -gt $((low + step * 9 / 10)) ]; then
        last=$((low + RANDOM % (step / 2)))
    fi
    echo "$last" 2>/dev/null >/proc/sys/kernel/ns_last_pid || true
    slurmd -D -N "$1" &
    wait $!
}

start_node() { # NODE
    local n
    n=$(cat "$DIR/nodes")
    if [ "$(cat "$DIR/ns")" = yes ]; then
        CLUSTER_DIR=$DIR launch "$1" \
            "${UNSHARE[@]}" bash "$SELF" _node_init "$1" "${1#n}" "$n"
    else
        launch "$1" slurmd -D -N "$1"
    fi
}

descendants() { # PID... : they and all below them
    local p c
    for p in "$@"; do
        echo "$p"
        # shellcheck disable=SC2046
        c=$(cat /proc/"$p"/task/*/children 2>/dev/null) || true
        # shellcheck disable=SC2086
        [ -z "$c" ] || descendants $c
    done
}

kill_node() { # NODE : at once, without any chance to say good-bye
    local p f pids=''
    if [ "$(cat "$DIR/ns" 2>/dev/null)" = yes ]; then
        if alive "$1"; then
            p=$(cat "/proc/$PID/task/$PID/children" 2>/dev/null) || true
            nsenter --target "${p%% *}" --pid --mount cat /proc/sys/kernel/ns_last_pid \
                >"$DIR/lastpid.$1" 2>/dev/null || rm -f "$DIR/lastpid.$1"
        fi
        stop "$1" KILL 5          # --kill-child: PID 1 of the node dies, so all do
        return
    fi
    # Plain: a slurmstepd is no child of slurmd, and wipes its environment, but it
    # holds its node's log open.  The users' processes are below it.
    stop "$1" KILL 5
    for f in /proc/[0-9]*; do
        p=${f#/proc/}
        [ "$(cat "$f/comm" 2>/dev/null)" = slurmstepd ] || continue
        [ -n "$(find "$f/fd" -lname "$DIR/log/$1.log" -print -quit 2>/dev/null)" ] || continue
        pids+=" $(descendants "$p" | tr '\n' ' ')"
    done
    # shellcheck disable=SC2086
    [ -z "${pids// /}" ] || kill -KILL $pids 2>/dev/null || true
}

# ----------------------------------------------------------------- commands --
check_args() {
    [ ${#DIR} -le 60 ] || die "CLUSTER_DIR is too long for unix sockets: $DIR"
    case $DIR in *[!A-Za-z0-9._/-]*) die "CLUSTER_DIR has characters that slurm.conf may not take: $DIR" ;; esac
    [ ! -d "$DIR" ] || [ -w "$DIR" ] || die "$DIR is not yours: set CLUSTER_DIR"
    if [ -d "$DIR" ] && [ ! -e "$MARK" ] && [ -n "$(ls -A "$DIR")" ]; then
        die "$DIR is not empty and was not made by this script"
    fi
}

lock() { # only one up, down, crash or boot at a time
    exec 9>>"$MARK"
    flock -w 120 9 || die "another cluster.sh is busy with $DIR"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

munge_answers() { munge -S "$DIR/run/munge.socket" -n -o /dev/null 2>/dev/null; }

states() { # the state of each node, one a line
    timeout 10 scontrol -o show nodes 2>/dev/null | grep -oE ' State=[^ ]+'
}

all_idle() { [ "$(states | grep -cx ' State=IDLE')" = "$1" ]; } # NODES

healthy() { # everything that "up" started lives, and answers
    local d
    [ -e "$DIR/nodes" ] || return 1
    for d in $(daemons); do alive "$d" || return 1; done
    [ "$(states | grep -cvE 'DOWN|UNKNOWN|\*')" = "$(cat "$DIR/nodes")" ]
}

settings() { # NODES : what "up" was asked for
    echo "$1 nodes, $CPUS cpus, port $PORT, ns $NS"
}

wait_for() { # SECONDS WHAT COMMAND... : poll until COMMAND succeeds
    local limit=$1 what=$2 d
    shift 2
    local end=$((SECONDS + limit))
    until "$@"; do
        for d in $(daemons); do
            if [ -e "$DIR/run/$d.pid" ] && ! alive "$d"; then
                logtails "$d"
                die "$d has died while waiting for $what"
            fi
        done
        if [ $SECONDS -ge $end ]; then
            sinfo -N -l >&2 2>&1 || true
            logtails munged slurmctld n1 n2
            die "$what: not within $limit s (logs: $DIR/log)"
        fi
        sleep 0.2
    done
}

cmd_up() {
    local n=${1:-4} t0=$SECONDS d p want
    case $n in '' | *[!0-9]* | 0) die "NODES must be a positive number, not '$n'" ;; esac
    [ "$n" -le 64 ] || die "more than 64 nodes on one host is asking for trouble"
    check_args
    mkdir -p "$DIR"
    : >>"$MARK"
    lock
    want=$(settings "$n")
    if [ "$(cat "$DIR/settings" 2>/dev/null)" = "$want" ] && healthy; then
        say "already up: $n nodes, SLURM_CONF=$SLURM_CONF"
        return 0
    fi
    do_down
    install_packages
    case $NS in
        auto) if can_namespace; then NS=yes; else NS=no; fi ;;
        yes) can_namespace || die "CLUSTER_NS=yes, but this user cannot make namespaces" ;;
        no) ;;
        *) die "CLUSTER_NS must be auto, yes or no" ;;
    esac
    for ((p = PORT; p <= PORT + n; p++)); do
        if port_open "$p"; then
            die "port $p is taken (set CLUSTER_PORT; $((PORT))-$((PORT + n)) are needed)"
        fi
    done
    rm -rf "$DIR/run" "$DIR/state" "$DIR/spool" "$DIR/tmp"
    mkdir -p "$DIR/run" "$DIR/state" "$DIR/spool" "$DIR/tmp" "$DIR/log"
    rm -f "$DIR"/log/*.log
    chmod 755 "$DIR" "$DIR/run" "$DIR/log"
    write_config "$n"
    echo "$n" >"$DIR/nodes"
    echo "$NS" >"$DIR/ns"
    STARTING=1

    launch munged munged --foreground --force --key-file="$DIR/munge.key" \
        --socket="$DIR/run/munge.socket" --pid-file="$DIR/run/munged.daemon" \
        --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munge.seed" --num-threads=2
    wait_for 10 "munged" munge_answers
    launch slurmctld slurmctld -D -c
    for d in $(nodes "$n"); do start_node "$d"; done
    wait_for "$WAIT" "all $n nodes idle" all_idle "$n"
    STARTING=
    echo "$want" >"$DIR/settings"
    say "up in $((SECONDS - t0)) s: $n nodes of $CPUS CPUs, namespaces: $NS"
    say "now:  eval \"\$($SELF env)\""
}

do_down() {
    local d i jobs
    [ -e "$DIR/nodes" ] || return 0
    # Let jobs end (and clean up after themselves) if they do so quickly.
    if alive slurmctld && jobs=$(timeout 5 squeue -h -o %A 2>/dev/null) && [ -n "$jobs" ]; then
        # shellcheck disable=SC2086
        timeout 5 scancel $jobs 2>/dev/null || true
        for ((i = 0; i < 30; i++)); do
            [ -n "$(timeout 5 squeue -h 2>/dev/null)" ] || break
            sleep 0.2
        done
    fi
    for d in $(daemons); do
        case $d in munged | slurmctld) ;; *) kill_node "$d" ;; esac
    done
    stop slurmctld TERM 10
    stop munged TERM 5
    rm -f "$DIR/nodes" "$DIR/ns" "$DIR/settings"
}

cmd_down() {
    check_args
    [ -e "$MARK" ] || { say "nothing to stop in $DIR"; return 0; }
    lock
    do_down
    say "down (logs and config stay in $DIR)"
}

# sbatch and srun pass the caller's environment on, so that a batch script needs no
# settings that are only for this local cluster.
cmd_env() {
    echo "export SLURM_CONF=$SLURM_CONF"
    # Ranks of all nodes share the few real CPUs, which Open MPI cannot see: let it not
    # spin while waiting (20 times faster here).
    echo "export OMPI_MCA_mpi_yield_when_idle=1"
    if [ "$(id -u)" = 0 ]; then
        echo "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    fi
}

one_node() { # NODE : check the argument of crash and boot
    [ -e "$DIR/nodes" ] || die "the cluster is not up"
    case " $(nodes "$(cat "$DIR/nodes")" | tr '\n' ' ')" in
        *" ${1:-?} "*) ;;
        *) die "no such node: '${1:-}'" ;;
    esac
    lock
}

cmd_crash() { # NODE
    one_node "$1"
    kill_node "$1"
    say "$1 is dead; slurmctld notices in about 30 s, or at once by: scontrol update nodename=$1 state=down reason=crash"
}

cmd_boot() { # NODE
    local port
    one_node "$1"
    alive "$1" || start_node "$1"
    port=$(($(sed -n 's/^SlurmctldPort=//p' "$SLURM_CONF") + ${1#n}))
    wait_for 15 "$1's slurmd" port_open "$port"
    # A node that somebody has set down by hand would stay so.
    case $(scontrol -o show node "$1") in
        *" State=DOWN"*) scontrol update nodename="$1" state=resume ;;
    esac
}

# A requeued job waits for 120 s (fixed in slurmctld).  Not "now": a restart within
# the second of the requeue fails with "Job credential revoked".
cmd_hurry() {
    local job reason start
    while read -r job reason start; do
        [ "$reason" = BeginTime ] || continue
        start=$(date -d "$start" +%s 2>/dev/null) || continue
        [ "$start" -le $(($(date +%s) + 2)) ] || scontrol update JobId="$job" StartTime=now+2
    done < <(squeue -h -t PENDING -o '%A %r %S')
}

main() {
    local cmd=${1:-}
    [ $# -eq 0 ] || shift
    case $cmd in
        up) cmd_up "$@" ;;
        down) cmd_down ;;
        env) cmd_env ;;
        crash) cmd_crash "${1:-}" ;;
        boot) cmd_boot "${1:-}" ;;
        hurry) cmd_hurry ;;
        _node_init) node_init "$@" ;;
        *) sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$SELF" >&2; exit 2 ;;
    esac
}

# Tests source it.
[ "${BASH_SOURCE[0]}" != "$0" ] || main "$@"
