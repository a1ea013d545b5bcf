"""requests-oauthlib with oauthlib's back-end client, on requests, with the certificate of mutual TLS."""
import os
import platform

import oauthlib
import requests
import requests_oauthlib
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session


def env(name: str) -> str:
    return os.environ[f"COUNTERSIGN_{name}"]


print(
    f"python {platform.python_version()}, requests-oauthlib {requests_oauthlib.__version__}, "
    f"oauthlib {oauthlib.__version__}, requests {requests.__version__}"
)

session = OAuth2Session(client=BackendApplicationClient(client_id=env("CLIENT_ID"), scope=env("SCOPE").split()))
# REQUESTS_CA_BUNDLE and the like would outrank what is said here.
session.trust_env = False
session.verify = env("CA")
session.cert = (env("CERTIFICATE"), env("KEY"))
session.fetch_token(
    f"{env('ISSUER')}/token",
    # By certificate: the client's id in the body, no Authorization header (RFC 8705 §2).
    include_client_id=True,
    auth=lambda request: request,
    resource=env("RESOURCE"),
)
answer = session.get(env("API"), timeout=20)
print(f"API {answer.status_code}")
