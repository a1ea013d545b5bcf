#!/usr/bin/env bash
# Lets the clients of tests/interop get a token of a started Countersign and call its API, and writes which they were and
# what versions they say of themselves as JSON: clients.sh DIRECTORY > clients.json
#
# DIRECTORY is what conformance/targets/countersign/start.sh prepared. What a client needs is installed under target/interop
# from its lock files, as tests/it/interop.rs does. A client whose tool is not here is left out, and that is said.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
directory=$(cd "${1:?clients.sh DIRECTORY}" && pwd)
member() { sed -n "s/^$1 = \"\\(.*\\)\"\$/\\1/p" "$directory/target.toml" | head -n 1; }

export COUNTERSIGN_ISSUER COUNTERSIGN_RESOURCE COUNTERSIGN_API
COUNTERSIGN_ISSUER=$(member issuer)
COUNTERSIGN_RESOURCE=$(member resource)
COUNTERSIGN_API=$COUNTERSIGN_RESOURCE/accounts
export COUNTERSIGN_CA=$directory/servers-ca.pem COUNTERSIGN_SCOPE=accounts:read COUNTERSIGN_CLIENT_ID=client
export COUNTERSIGN_CERTIFICATE=$directory/client.pem COUNTERSIGN_KEY=$directory/client.key
export GOTOOLCHAIN=local

# A client's files, copied to where it may install things.
installed() {
    mkdir -p "$root/target/interop/$1"
    cp "$root/tests/interop/$1"/* "$root/target/interop/$1/"
    cd "$root/target/interop/$1"
}
curl_client() { sh "$root/tests/interop/curl/client.sh"; }
node_client() {
    installed node
    [ -e node_modules/openid-client/package.json ] || npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    node client.mjs
}
go_client() {
    installed go
    go build -mod=readonly -o client . >&2
    ./client
}
python_client() {
    installed python
    if [ ! -e venv/complete ]; then
        python3 -m venv venv
        venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
            -r requirements.txt >&2
        touch venv/complete
    fi
    venv/bin/python "$1"
}

separator='['
try() {
    local name=$1 tool=$2 said
    shift 2
    if ! command -v "$tool" >/dev/null; then
        echo "$name is left out: there is no $tool here" >&2
        return
    fi
    said=$("$@")
    if [ "$(tail -n 1 <<<"$said")" != "API 200" ]; then
        printf '%s did not get through to the API:\n%s\n' "$name" "$said" >&2
        exit 1
    fi
    # The first line is what it says of itself.
    printf '%s\n  { "name": "%s", "version": "%s" }' "$separator" "$name" "$(head -n 1 <<<"$said" | tr -d '"\\')"
    separator=,
}

try curl curl curl_client
try openid-client node node_client
try golang.org/x/oauth2 go go_client
try Authlib python3 python_client authlib_client.py
try requests-oauthlib python3 python_client requests_oauthlib_client.py
[ "$separator" = , ] || { echo "no client ran" >&2; exit 1; }
printf '\n]\n'
