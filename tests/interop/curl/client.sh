#!/bin/sh
# curl, as the README tells partners to use it: a token, then the API with it.
set -eu

curl --version | head -n 1 | cut -d ' ' -f 1-2

ask() {
    curl --silent --show-error --fail-with-body --max-time 20 \
        --cacert "$COUNTERSIGN_CA" --cert "$COUNTERSIGN_CERTIFICATE" --key "$COUNTERSIGN_KEY" "$@"
}

token=$(ask "$COUNTERSIGN_ISSUER/token" \
    --data grant_type=client_credentials \
    --data-urlencode "client_id=$COUNTERSIGN_CLIENT_ID" \
    --data-urlencode "scope=$COUNTERSIGN_SCOPE" \
    --data-urlencode "resource=$COUNTERSIGN_RESOURCE" |
    sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')

status=$(ask "$COUNTERSIGN_API" --header "Authorization: Bearer $token" --output /dev/null --write-out '%{http_code}')
echo "API $status"
