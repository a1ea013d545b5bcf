#!/usr/bin/env bash
# Starts Countersign for the judge, with everything that a target file can name, and stays in the foreground:
#
#     start.sh DIRECTORY [PORT]
#
# The server listens on PORT (21443 unless told), the guarded API on the next, an API that trusts the judge as its issuer on
# the one after, the judge itself on the fourth, health and metrics on the fifth. DIRECTORY gets certificates, data and
# target.toml; what is in it from an earlier start is deleted. `ready` on standard output says that the judge may begin.
#
# COUNTERSIGN names the server's program, CAST the one that makes the certificates, EXAMPLES the folder of guarded_api and
# forged_api; what is not named is built, without optimization.

set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
directory=${1:?start.sh DIRECTORY [PORT]}
port=${2:-21443}
command -v curl >/dev/null || { echo "curl is missing: readiness is asked with it" >&2; exit 1; }
api_port=$((port + 1)) forged_port=$((port + 2)) judge_port=$((port + 3)) operations_port=$((port + 4))

build() { (cd "$root" && cargo build --quiet --locked "$@"); }
if [ -z "${CAST:-}" ]; then
    build -p countersign-conformance --bin cast
    CAST=$root/target/debug/cast
fi
if [ -z "${EXAMPLES:-}" ]; then
    build -p countersign-resource-server --example guarded_api --example forged_api
    EXAMPLES=$root/target/debug/examples
fi
if [ -z "${COUNTERSIGN:-}" ]; then
    build -p countersign --bin countersign
    COUNTERSIGN=$root/target/debug/countersign
fi

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
# Only what a start makes: a wrong DIRECTORY is not to be emptied.
rm -rf "$directory/data"
"$CAST" "$directory"

cat >"$directory/countersign.toml" <<TOML
issuer = "https://localhost:$port"
listen = "127.0.0.1:$port"
operations.listen = "127.0.0.1:$operations_port"
data_directory = "data"
tls.certificate = "server.pem"
tls.key = "server.key"
log.filter = "warn"
TOML
# Countersign reads its environment too, and whoever starts this may have said there what is meant for another.
unset "${!COUNTERSIGN_@}"
countersign() { "$COUNTERSIGN" --config "$directory/countersign.toml" "$@" >/dev/null; }

cd "$directory"
api=https://localhost:$api_port
countersign init
countersign participant add first --legal-name "First organisation"
countersign participant add second --legal-name "Second organisation"
countersign anchor add ca.pem --owner first --any-name
countersign anchor add ca2.pem --owner second --any-name
countersign resource-server add api --resource "$api" --scope accounts:read --scope payments:write \
    --certificate introspection.pem
countersign client add client --participant first --san-dns client.judge.example
countersign client add client2 --participant second --san-dns client2.judge.example
countersign client add client_jwt --participant first --auth-method private_key_jwt --jwks client_jwt.jwks.json \
    --certificate client_jwt.pem
countersign client add client_self_signed --participant first --auth-method self_signed_tls_client_auth \
    --jwks client_self_signed.jwks.json
for client in client client2 client_jwt client_self_signed; do
    countersign entitlement add --client "$client" --resource-server api --scope accounts:read --reason judged
done
countersign entitlement add --id client2-pays --client client2 --resource-server api --scope payments:write --reason judged

cat >target.toml <<TOML
issuer = "https://localhost:$port"
roots = "servers-ca.pem"
scope = "accounts:read"
other_scope = "payments:write"
resource = "$api"

[client]
id = "client"
certificate = "client.pem"
key = "client.key"

[client2]
id = "client2"
certificate = "client2.pem"
key = "client2.key"

[client_jwt]
id = "client_jwt"
key = "client_jwt.assertion.key"
kid = "$(cat client_jwt.kid)"
alg = "ES256"
certificate = "client_jwt.pem"
certificate_key = "client_jwt.key"

[client_self_signed]
id = "client_self_signed"
certificate = "client_self_signed.pem"
key = "client_self_signed.key"

[ca]
certificate = "ca.pem"
key = "ca.key"

[introspection]
id = "api"
certificate = "introspection.pem"
key = "introspection.key"

[protected_resource]
url = "$api/accounts"
method = "GET"

[forged]
url = "https://localhost:$forged_port/accounts"
audience = "https://localhost:$forged_port"
scope = "accounts:read"
listen = "127.0.0.1:$judge_port"
issuer = "https://localhost:$judge_port"
certificate = "issuer.pem"
key = "issuer.key"

# RFC 9068 §4 has the API look for itself in \`aud\`. Countersign's tokens name one audience, and the crate takes no other: a
# token with several is good at each of them (resource-server/README.md).
[except]
rfc9068-4-aud-among-others = "a token for several audiences is good at each of them: the crate refuses it"

# What Countersign's tokens say beyond RFC 9068, and its resource servers ask for.
[forged.claims]
participant_id = "first"
roles = []
environment = "sandbox"
anchor = "judge"
registry_version = 1
TOML

"$COUNTERSIGN" --config countersign.toml serve &
server=$!
"$EXAMPLES/guarded_api" "https://localhost:$port" api.pem api.key servers-ca.pem "127.0.0.1:$api_port" "$api" &
guarded=$!
"$EXAMPLES/forged_api" "https://localhost:$judge_port" api.pem api.key servers-ca.pem "127.0.0.1:$forged_port" \
    "https://localhost:$forged_port" &
forged=$!
stop() {
    kill "$server" "$guarded" "$forged" 2>/dev/null || true
    wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Ready is who can do the whole of it: a token, and the API with it. The other API has no issuer yet, the judge's: it answers.
ask() {
    curl --silent --max-time 5 --cacert servers-ca.pem --cert client.pem --key client.key "$@" || true
}
for _ in $(seq 200); do
    # `kill -0` of several succeeds while one of them lives.
    for process in "$server" "$guarded" "$forged"; do
        kill -0 "$process"
    done
    token=$(ask "https://localhost:$port/token" --data grant_type=client_credentials --data client_id=client |
        sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
    status=$(ask --output /dev/null --write-out '%{http_code}' --header "Authorization: Bearer $token" \
        "https://localhost:$api_port/accounts")
    forged_status=$(ask --output /dev/null --write-out '%{http_code}' "https://localhost:$forged_port/accounts")
    if [ "$status" = 200 ] && [ "$forged_status" != 000 ]; then
        echo "ready: $directory/target.toml"
        wait -n "$server" "$guarded" "$forged"
        exit 1
    fi
    sleep 0.1
done
echo "no token that the API takes: $status, or nobody at the other API: $forged_status" >&2
exit 1
