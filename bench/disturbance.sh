#!/usr/bin/env bash
# Whether recording disturbs a benchmark: fio's random reads on a loop-mounted ext4 and on tmpfs, and
# a load that is bound by the CPU alone on all of them, each without and with recording in
# interleaved pairs, every 10 s, 1 s and 10 ms. Needs root and fio; takes about 20 minutes.
#
#   bench/disturbance.sh [DIR]    DIR: where the loop device's file goes [default: /var/tmp]
#
# PAIRS_LONG, PAIRS, SECONDS_LONG and SECONDS_SHORT change how much is measured; each measurement is
# run as "$BEHIND ringstat bench ...". RINGSTAT and WORK are built unless they name programs.
set -euo pipefail
cd "$(dirname "$0")/.."
pairs_long=${PAIRS_LONG:-5} pairs=${PAIRS:-14}
# At 10 s a run must be longer than that, for a sample to be taken while it runs.
seconds_long=${SECONDS_LONG:-11} seconds_short=${SECONDS_SHORT:-3}
if [ -z "${RINGSTAT:-}" ] || [ -z "${WORK:-}" ]; then
  cargo build --release --quiet --locked -p ringstat -p ringstat-bench
fi
ringstat=${RINGSTAT:-target/release/ringstat} work=${WORK:-target/release/work}

scratch=$(mktemp -d "${1:-/var/tmp}/ringstat-disturbance-XXXXXX")
cleanup() {
  mountpoint -q "$scratch/ext4" && umount "$scratch/ext4"
  mountpoint -q "$scratch/tmpfs" && umount "$scratch/tmpfs"
  rm -rf "$scratch"
}
trap cleanup EXIT
mkdir "$scratch/ext4" "$scratch/tmpfs"
truncate -s 1G "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mount -o loop,noatime "$scratch/image" "$scratch/ext4"
mount -t tmpfs -o size=512M ringstat-disturbance "$scratch/tmpfs"
for dir in ext4 tmpfs; do
  fio --name=layout --filename="$scratch/$dir/file" --size=256M --rw=write --bs=1M --end_fsync=1 \
    --output=/dev/null
done

# measure NAME INTERVAL PAIRS METRIC.. -- COMMAND
measure() {
  local name=$1 interval=$2 count=$3
  shift 3
  printf '\n== %s, every %s\n' "$name" "$interval"
  ${BEHIND:-} "$ringstat" bench --quiet --interval "$interval" --pairs "$count" "$@" |
    tee "$scratch/out"
  # The rows of its table, for the table of all.
  awk -v name="$name" -v interval="$interval" \
    '/^median /{rows=1; next} rows && NF {printf "%-16s %-8s %s\n", name, interval, $0}' \
    "$scratch/out" >>"$scratch/table"
}

fio_reads() {
  local name=$1 dir=$2 direct=$3 interval=$4 count=$5 seconds=$6
  measure "$name" "$interval" "$count" \
    --metric '(?s)"read" : \{.*?"iops" : (?<iops>[0-9.]+)' \
    --metric '(?s)"read" : \{.*?"99.000000" : (?<p99_ns>[0-9]+)' -- \
    fio --name=reads --filename="$scratch/$dir/file" --size=256M --rw=randread --bs=4k \
    --direct="$direct" --ioengine=psync --time_based --runtime="$seconds" --randseed=1 \
    --output-format=json
}

cpu_bound() {
  local interval=$1 count=$2 seconds=$3 per_second
  # As much as the seconds are filled with, whatever the CPU.
  per_second=$(${BEHIND:-} "$work" 1000 | sed 's/.*: //')
  measure "all CPUs busy" "$interval" "$count" --metric 'per second: (?<per_second>[0-9.]+)' -- \
    "$work" "$(awk -v rate="$per_second" -v seconds="$seconds" -v cpus="$(nproc)" \
      'BEGIN {printf "%d", rate * seconds / cpus}')"
}

for interval in 10s 1s 10ms; do
  count=$pairs seconds=$seconds_short
  if [ "$interval" = 10s ]; then
    count=$pairs_long seconds=$seconds_long
  fi
  fio_reads "fio on ext4" ext4 1 "$interval" "$count" "$seconds"
  fio_reads "fio on tmpfs" tmpfs 0 "$interval" "$count" "$seconds"
  cpu_bound "$interval" "$count" "$seconds"
done

printf '\n%-16s %-8s %-24s %12s %12s %10s  %s\n' load interval median without with % conclusion
cat "$scratch/table"
