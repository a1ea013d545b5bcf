#!/usr/bin/env bash
# The server built by the profile `dist`, and by a profile of itself: what runs often is compiled for it, and what runs at all lies
# together. Some tenth less CPU for a token, and a third less of the program in memory (docs/performance.md).
#
#   bench/pgo.sh            # makes target/pgo/countersign
#
# Builds the server twice and the load once, which takes twenty-five minutes on two cores the first time, and runs the server in between
# under the load it is built for, on ports 8443, 8444 and 9443 of this machine. Needs `rustup component add llvm-tools`. Leaves nothing
# running.

set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD/target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || { echo "there is no $profdata: rustup component add llvm-tools" >&2; exit 1; }

server=
data=
stop() {
    status=$?
    trap - EXIT
    if [ -n "$server" ]; then
        kill -KILL "$server" 2>/dev/null || true
        cat "$data/serve.log" >&2
    fi
    [ -z "$data" ] || rm -rf "$data"
    exit "$status"
}
trap stop EXIT

# build DIRECTORY FLAGS [FLAGS OF THE LAST STEP]...
build() {
    local directory=$1 flags=$2
    shift 2
    # One flag, encoded: the way here may have spaces.
    CARGO_ENCODED_RUSTFLAGS=$flags cargo rustc --locked --profile dist --package countersign --bin countersign \
        --target "$host" --target-dir "$root/$directory" -- "$@"
}

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

step 'a server that counts'
rm -rf "$root/raw"
build counting "-Cprofile-generate=$root/raw"
cargo build --locked --release --package countersign-bench --bin countersign-bench

step 'the load'
data=$(mktemp -d "$root/data.XXXXXX")
(cd "$data" && "$root/counting/$host/dist/countersign" quickstart --exit)
rm -rf "$root/raw"
(cd "$data" && exec "$root/counting/$host/dist/countersign" serve >serve.log 2>&1) &
server=$!
for _ in $(seq 100); do
    kill -0 "$server"
    curl --silent --insecure --output /dev/null https://localhost:8443/.well-known/oauth-authorization-server && break
    sleep 0.1
done
for manner in '' --fresh --resumed; do
    # shellcheck disable=SC2086
    target/release/countersign-bench drive --address localhost:8443 --ca "$data/countersign-data/server-ca.pem" \
        --certificate "$data/countersign-data/clients/birch-claims.pem" \
        --key "$data/countersign-data/clients/birch-claims.key" \
        --client-id birch-claims --pid "$server" --connections 16 --seconds 4 --rounds 2 $manner
done
# What was counted is written at the end of the process.
kill -TERM "$server"
wait "$server"
server=
"$profdata" merge --output="$root/merged.profdata" "$root/raw"
rm -rf "$root/raw"

step 'the server'
last_step=()
if [ "$host" = x86_64-unknown-linux-gnu ]; then
    # There rustc links with lld. What ran comes first, so that it shares pages; what is the same is there once.
    "$profdata" show --covered "$root/merged.profdata" | sed 's/.*;//; s/^ *//; s/:$//' | grep '^_' | sort -u >"$root/order"
    for argument in "--symbol-ordering-file=$root/order" --no-warn-symbol-ordering --icf=safe; do
        last_step+=("-Clink-arg=-Wl,$argument")
    done
fi
build guided "-Cprofile-use=$root/merged.profdata" ${last_step[@]+"${last_step[@]}"}
cp "$root/guided/$host/dist/countersign" "$root/countersign"
step 'done: target/pgo/countersign'
