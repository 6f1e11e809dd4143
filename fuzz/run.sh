#!/bin/sh
# Runs every fuzz target for SECONDS (default 60), or those named behind it:
#     fuzz/run.sh [SECONDS [TARGET...]]
# Needs a nightly toolchain; installs cargo-fuzz if it is missing. The corpus grows in
# fuzz/corpus, a finding is left in fuzz/artifacts, and the exit status is 1.
set -eu
cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- proc_text ring_bytes metadata_merge manifest timeseries_json hosts known_hosts agent_says launcher_says

cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked

for target; do
    mkdir -p "corpus/$target"
    cp "seeds/$target/"* "corpus/$target/"
    echo "== $target, $seconds s" >&2
    cargo +nightly fuzz run "$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
        -dict=dictionary -print_final_stats=1
done
