#!/usr/bin/env bash
# Prepares a Countersign for the OpenID Foundation's suite and serves it, with a guarded API, in the foreground:
#
#     start.sh DIRECTORY [HOST [PORT]]
#
# HOST is the name by which the suite reaches this machine: localhost, or from a container host.docker.internal. The server
# listens on PORT (21443 unless told), the API on the next, health and metrics on the one after. DIRECTORY gets
# plan-mtls.json and plan-private_key_jwt.json: the suite's configuration, with private keys that are good for this only.
#
# COUNTERSIGN names the server's program, OPENID_PLAN the one that writes the plans, EXAMPLES the folder of guarded_api;
# what is not named is built, without optimization.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
directory=${1:?start.sh DIRECTORY [HOST [PORT]]}
host=${2:-localhost}
port=${3:-21443}
command -v curl >/dev/null || { echo "curl is missing: readiness is asked with it" >&2; exit 1; }
api_port=$((port + 1)) operations_port=$((port + 2))

build() { (cd "$root" && cargo build --quiet --locked "$@"); }
if [ -z "${OPENID_PLAN:-}" ]; then
    build -p countersign-conformance --bin openid-plan
    OPENID_PLAN=$root/target/debug/openid-plan
fi
if [ -z "${EXAMPLES:-}" ]; then
    build -p countersign-resource-server --example guarded_api
    EXAMPLES=$root/target/debug/examples
fi
if [ -z "${COUNTERSIGN:-}" ]; then
    build -p countersign --bin countersign
    COUNTERSIGN=$root/target/debug/countersign
fi
program=$COUNTERSIGN

issuer=https://$host:$port
api=https://$host:$api_port
# A container does not come in by the loopback interface.
address=127.0.0.1
[ "$host" = localhost ] || address=0.0.0.0

# The guarded API asks the server for its keys by the same name.
if ! getent hosts "$host" >/dev/null; then
    echo "this machine does not know itself as $host: add the line \"127.0.0.1 $host\" to /etc/hosts" >&2
    exit 1
fi

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
rm -rf "$directory/data"
"$OPENID_PLAN" "$directory" "$issuer" "$api/accounts" accounts:read "$host"

cat >"$directory/countersign.toml" <<TOML
issuer = "$issuer"
listen = "$address:$port"
operations.listen = "127.0.0.1:$operations_port"
data_directory = "data"
tls.certificate = "server.pem"
tls.key = "server.key"
log.filter = "warn"
TOML
# Countersign reads its environment too, and whoever starts this may have said there what is meant for another.
unset "${!COUNTERSIGN_@}"
countersign() { "$program" --config "$directory/countersign.toml" "$@" >/dev/null; }

cd "$directory"
countersign init
countersign participant add suite --legal-name "OpenID Foundation conformance suite"
countersign anchor add clients-ca.pem --owner suite --any-name
countersign resource-server add api --resource "$api" --scope accounts:read
for number in 1 2; do
    countersign client add "suite-mtls-$number" --participant suite --san-dns "suite-mtls-$number.suite.example"
    countersign client add "suite-private-key-jwt-$number" --participant suite --auth-method private_key_jwt \
        --jwks "suite-private-key-jwt-$number.jwks.json" --certificate "suite-private-key-jwt-$number.pem"
done
for client in suite-mtls-1 suite-mtls-2 suite-private-key-jwt-1 suite-private-key-jwt-2; do
    countersign entitlement add --client "$client" --resource-server api --scope accounts:read --reason "conformance suite"
done

"$program" --config countersign.toml serve &
server=$!
"$EXAMPLES/guarded_api" "$issuer" server.pem server.key servers-ca.pem "$address:$api_port" "$api" &
guarded=$!
stop() {
    kill "$server" "$guarded" 2>/dev/null || true
    wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Ready is who can do the whole of it: a token, and the API with it. A name that only containers know
# is not asked for here.
ask() {
    curl --silent --max-time 5 --cacert servers-ca.pem --cert suite-mtls-1.pem --key suite-mtls-1.key "$@" || true
}
for _ in $(seq 200); do
    # `kill -0` of several succeeds while one of them lives.
    for process in "$server" "$guarded"; do
        kill -0 "$process"
    done
    token=$(ask "https://localhost:$port/token" --data grant_type=client_credentials --data client_id=suite-mtls-1 |
        sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
    status=$(ask --output /dev/null --write-out '%{http_code}' --header "Authorization: Bearer $token" \
        "https://localhost:$api_port/accounts")
    if [ "$status" = 200 ]; then
        echo "ready: $directory/plan-mtls.json $directory/plan-private_key_jwt.json"
        wait -n "$server" "$guarded"
        exit 1
    fi
    sleep 0.1
done
echo "no token that the API takes: $status" >&2
exit 1
