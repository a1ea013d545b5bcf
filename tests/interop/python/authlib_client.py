"""Authlib's OAuth2Session, on requests, with the certificate of mutual TLS."""
import os
import platform

import authlib
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata


def env(name: str) -> str:
    return os.environ[f"COUNTERSIGN_{name}"]


print(f"python {platform.python_version()}, Authlib {authlib.__version__}, requests {requests.__version__}")

issuer, authority = env("ISSUER"), env("CA")
metadata = AuthorizationServerMetadata(
    requests.get(f"{issuer}/.well-known/oauth-authorization-server", verify=authority, timeout=20).json()
)
metadata.validate_issuer()
assert metadata["issuer"] == issuer, metadata["issuer"]
assert "tls_client_auth" in metadata["token_endpoint_auth_methods_supported"]

session = OAuth2Session(
    env("CLIENT_ID"),
    # By certificate: the client's id in the body, and nothing secret (RFC 8705 §2).
    token_endpoint_auth_method="none",
    scope=env("SCOPE"),
)
# REQUESTS_CA_BUNDLE and the like would outrank what is said here.
session.trust_env = False
session.verify = authority
session.cert = (env("CERTIFICATE"), env("KEY"))
token = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials", resource=env("RESOURCE"))
assert token["token_type"].lower() == "bearer", token["token_type"]
answer = session.get(env("API"), timeout=20)
print(f"API {answer.status_code}")
