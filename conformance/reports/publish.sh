#!/usr/bin/env bash
# Judges Countersign and npm's oidc-provider on this machine and writes what is published beside this script:
#
#     conformance/reports/publish.sh [countersign] [oidc-provider] [oidc-provider-opaque]
#
# All of them where none is named. COUNTERSIGN names the server's program; otherwise it is built as a release.
# Ports are the same each time (PORT, 24443 unless told), so that two reports can be compared; paths of this machine are taken out.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
port=${PORT:-24443}

cargo build --quiet --locked -p countersign-conformance
cargo build --quiet --locked -p countersign-resource-server --examples
if [ -z "${COUNTERSIGN:-}" ]; then
    cargo build --quiet --locked --release -p countersign
    COUNTERSIGN=$root/target/release/countersign
fi
export COUNTERSIGN CAST=$root/target/debug/cast EXAMPLES=$root/target/debug/examples
version=$("$COUNTERSIGN" --version)
peer=$(sed -n 's/.*"oidc-provider": "\(.*\)"/\1/p' conformance/targets/oidc-provider/package.json)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/countersign-reports.XXXXXX")
target=
stop() {
    if [ -n "$target" ]; then
        kill "$target" 2>/dev/null || true
        wait "$target" 2>/dev/null || true
        target=
    fi
}
trap 'stop; rm -rf "$scratch"' EXIT

start() {
    mkdir -p "$scratch/$1"
    "conformance/targets/$1/start.sh" "$scratch/$1" "$port" >"$scratch/$1.log" 2>&1 &
    target=$!
    until grep -q '^ready: ' "$scratch/$1.log"; do
        kill -0 "$target" 2>/dev/null || { cat "$scratch/$1.log" >&2; exit 1; }
        sleep 0.2
    done
}

# judge REPORT TARGET-FILE NAME: a target that fails is news, not a mistake of this script.
judge() {
    local status=0
    # A name has to be known before the first table.
    { printf 'name = "%s"\n' "$3"; cat "$2"; } >"$2.named"
    mv "$2.named" "$2"
    target/debug/countersign-conformance run --quiet --config "$2" --json "$here/$1.json" --html "$here/$1.html" || status=$?
    [ "$status" -le 1 ] || exit "$status"
    sed -i "s#$scratch##g; s#$root##g; s#${HOME:-/root}/#~/#g" "$here/$1.json" "$here/$1.html"
    # The row of README.md.
    local counts= count
    for count in pass fail excepted skipped; do
        counts+=" $(sed -n "/^  \"counts\": {/,/^  }/s/^ *\"$count\": \([0-9]*\),\{0,1\}\$/\1/p" "$here/$1.json") |"
    done
    sed -i "s#^\(| \[\`$1.html\`\].*\) |\( [0-9]* |\)\{4\}\$#\1 |$counts#" "$here/README.md"
}

wanted=" ${*:-countersign oidc-provider oidc-provider-opaque} "
if [[ $wanted == *" countersign "* ]]; then
    start countersign
    file=$scratch/countersign/target.toml
    conformance/reports/clients.sh "$scratch/countersign" >"$scratch/countersign/clients.json"
    sed -i '1i real_clients = "clients.json"' "$file"
    judge countersign "$file" "${version^}"
    stop
fi
if [[ $wanted == *" oidc-provider"* ]]; then
    start oidc-provider
    for kind in "" -opaque; do
        [[ $wanted == *" oidc-provider$kind "* ]] || continue
        judge "oidc-provider$kind" "$scratch/oidc-provider/target$kind.toml" "oidc-provider $peer${kind:+, opaque tokens}"
    done
    stop
fi
