#!/usr/bin/env bash
# Starts npm's oidc-provider for the judge and stays in the foreground: start.sh DIRECTORY [PORT]
#
# DIRECTORY gets the certificates, target.toml (JWT access tokens) and target-opaque.toml (opaque ones, which it answers
# questions about). What npm installs goes to the user's cache, from the lock file. oidc-provider wants a newer Node than
# some systems have: where `node` is too old, npm's own package of it is installed beside.
#
# CAST names the program that makes the certificates; otherwise it is built.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=${1:?start.sh DIRECTORY [PORT]}
port=${2:-9443}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/countersign

if [ -z "${CAST:-}" ]; then
    (cd "$here/../../.." && cargo build --quiet --locked -p countersign-conformance --bin cast)
    CAST=$here/../../../target/debug/cast
fi
"$CAST" "$directory"

node=$(command -v node || true)
if [ -z "$node" ] || [ "$("$node" -p 'process.versions.node.split(".")[0]')" -lt 22 ]; then
    mkdir -p "$cache/node"
    if [ ! -x "$cache/node/node_modules/node/bin/node" ]; then
        (cd "$cache/node" && echo '{"private":true}' >package.json &&
            npm install --no-audit --no-fund --loglevel=error node@24.21.0 >&2)
    fi
    node=$cache/node/node_modules/node/bin/node
fi

mkdir -p "$cache/oidc-provider"
if ! cmp --silent "$here/package-lock.json" "$cache/oidc-provider/package-lock.json"; then
    cp "$here/package.json" "$here/package-lock.json" "$cache/oidc-provider/"
    (cd "$cache/oidc-provider" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || {
        rm -f "$cache/oidc-provider/package-lock.json"
        exit 1
    }
fi
# Modules are looked for beside the program.
cp "$here/server.mjs" "$cache/oidc-provider/server.mjs"

# The first resource's tokens are JWTs, the second's are opaque.
for kind in api opaque; do
    file=$directory/target.toml
    [ "$kind" = api ] || file=$directory/target-$kind.toml
    cat >"$file" <<TOML
issuer = "https://localhost:$port"
roots = "servers-ca.pem"
scope = "accounts:read"
other_scope = "payments:write"
resource = "https://$kind.judge.example"

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
kid = "$(cat "$directory/client_jwt.kid")"
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
id = "introspection"
certificate = "introspection.pem"
key = "introspection.key"
TOML
done

exec "$node" "$cache/oidc-provider/server.mjs" "$directory" "$port"
