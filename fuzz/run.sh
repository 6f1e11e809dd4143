#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 60), or those named behind it, as many at a time as
# there are CPUs:
#     fuzz/run.sh [SECONDS [TARGET...]]
# Installs cargo-fuzz if it is missing. The corpus grows in fuzz/corpus, a finding is left in
# fuzz/artifacts with its log, which is printed, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- proc_text ring_bytes metadata_merge manifest timeseries_json hosts known_hosts agent_says launcher_says front

cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
# The sanitizer is for a nightly compiler; a stable one has it too, where it is allowed to.
if [[ "$(rustup toolchain list 2>/dev/null)" == *nightly* ]]; then
  export RUSTUP_TOOLCHAIN=nightly
else
  export RUSTC_BOOTSTRAP=1
fi
cargo fuzz build
programs=target/$(rustc -vV | sed -n 's/^host: //p')/release

fuzz() {
  local target=$1 log=artifacts/$1/log
  mkdir -p "corpus/$target" "artifacts/$target"
  [ ! -d "seeds/$target" ] || cp "seeds/$target/"* "corpus/$target/"
  if "$programs/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -max_len=65536 -timeout=30 -rss_limit_mb=1024 \
    -dict=dictionary -print_final_stats=1 >"$log" 2>&1; then
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executions executions in $seconds s, $coverage, no finding"
  else
    tail -n 100 "$log"
    echo "$target: a FINDING, see fuzz/$log"
    return 1
  fi
}
export -f fuzz
export seconds programs
printf '%s\n' "$@" | xargs -P "$(nproc)" -I '{}' bash -euo pipefail -c 'fuzz {}'
