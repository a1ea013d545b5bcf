#!/usr/bin/env python3
"""Fills fuzz/corpus/ from tests/vectors/: `python3 fuzz/seeds.py` at the root of the repository, before the first run.

What `crl`, `ocsp` and `bundle` begin with besides is made by `conformance/examples/fuzz_seeds.rs`.
"""

import base64
import hashlib
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
VECTORS = ROOT / "tests" / "vectors"


def seed(target, octets):
    folder = ROOT / "fuzz" / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)


def certificates(text):
    for section in re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.S):
        yield base64.b64decode(re.sub(r"\s", "", section))


for path in (VECTORS / "names").glob("*.json"):
    for case in json.loads(path.read_text()):
        seed("dn_text", case["registered"].encode())
        subject = bytes.fromhex(case["subject"])
        alt_names = bytes.fromhex(case.get("alt_names", ""))
        seed("name_der", len(subject).to_bytes(2, "big") + subject + alt_names)
for path in (VECTORS / "rfc").glob("*.pem"):
    for der in certificates(path.read_text()):
        seed("leaf", der)
for case in json.loads((VECTORS / "x509-limbo" / "client.json").read_text())["testcases"]:
    for der in certificates(case["peer_certificate"]):
        seed("leaf", der)
for section in re.findall(r"-----BEGIN X509 CRL-----(.*?)-----", (VECTORS / "rfc" / "rfc5280-c4-crl.pem").read_text(), re.S):
    seed("crl", base64.b64decode(re.sub(r"\s", "", section)))
for folder in sorted((ROOT / "fuzz" / "corpus").iterdir()):
    print(folder.name, len(list(folder.iterdir())))
