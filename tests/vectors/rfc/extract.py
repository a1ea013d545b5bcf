#!/usr/bin/env python3
"""Takes what RFCs print as examples out of their texts: certificates and a CRL (RFC 5280 Appendix C, RFC 8705 Appendix A,
RFC 9440 Appendix A), signatures (RFC 7515 Appendices A and E), a thumbprint of a key (RFC 7638 §3.1).

`python3 extract.py FOLDER` reads rfc5280.txt, rfc7515.txt, rfc7638.txt, rfc8705.txt and rfc9440.txt in FOLDER and writes
PEM and JSON here. RFC 5280 shows annotated dumps by dumpasn1: each line gives offset, length and value, from which the DER
is put together again and every stated offset and length is checked. RFC 7515 and RFC 7638 break long values over lines "for
display purposes only", and print the octets beside them: the lines are joined again and compared with the octets.
"""

import base64
import json
import re
import sys
import textwrap

UNIVERSAL = {
    "BOOLEAN": 0x01, "INTEGER": 0x02, "BIT STRING": 0x03, "OCTET STRING": 0x04, "NULL": 0x05, "OBJECT IDENTIFIER": 0x06,
    "ENUMERATED": 0x0A, "PrintableString": 0x13, "IA5String": 0x16, "UTCTime": 0x17, "SEQUENCE": 0x30, "SET": 0x31,
}  # fmt: skip


def head(tag, length):
    if length < 0x80:
        return bytes([tag, length])
    if length < 0x100:
        return bytes([tag, 0x81, length])
    return bytes([tag, 0x82, length >> 8, length & 0xFF])


def oid(arcs):
    out = b""
    for arc in [arcs[0] * 40 + arcs[1]] + arcs[2:]:
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(0x80 | arc & 0x7F)
        out += bytes(reversed(octets))
    return out


def contents(kind, text):
    """The contents octets of one value as dumpasn1 writes it."""
    if kind == "OBJECT IDENTIFIER":
        numbers = re.search(r"[('](\d+(?: \d+)+)[)']", text).group(1)
        return oid([int(arc) for arc in numbers.split()])
    if kind == "BOOLEAN":
        return b"\xff" if "TRUE" in text else b"\x00"
    if kind == "NULL":
        return b""
    if kind == "UTCTime":
        day, month, year, *clock = re.search(r"(\d\d)/(\d\d)/\d\d(\d\d) (\d\d):(\d\d):(\d\d) GMT", text).groups()
        return (year + month + day + "".join(clock) + "Z").encode()
    if kind == "BIT STRING" and "'B" in text:
        bits = re.search(r"'([01]+)'B", text).group(1)
        unused = -len(bits) % 8
        return bytes([unused]) + int(bits + "0" * unused, 2).to_bytes((len(bits) + unused) // 8, "big")
    if "'" in text:
        return "".join(re.findall(r"'([^']*)'", text)).encode()
    octets = re.findall(r"\b[0-9A-F]{2}\b", text)
    if kind in ("INTEGER", "ENUMERATED") and re.fullmatch(r"\s*\d+\s*", text) and len(text.split()) == 1:
        number = int(text)
        return number.to_bytes(number.bit_length() // 8 + 1, "big")
    value = bytes.fromhex("".join(octets))
    return b"\x00" + value if kind == "BIT STRING" else value


def rebuild(dump):
    """The DER of a dump."""
    entries = []
    for line in dump.splitlines():
        if found := re.match(r"\s*(\d+)\s+(\d+):\s+(.*)$", line):
            entries.append([int(found.group(1)), int(found.group(2)), found.group(3)])
        elif found := re.match(r"\s+:\s(.*)$", line):
            entries[-1][2] += " " + found.group(1)
    at = 0

    def element():
        nonlocal at
        offset, length, text = entries[at]
        at += 1
        kind = re.match(r"\[\d\]|[A-Z][A-Za-z0-9]*(?: STRING| IDENTIFIER)?", text).group(0)
        rest = text[len(kind):]
        constructed = bool(re.match(r"(, encapsulates)? \{", rest))
        tag = 0x80 | int(kind[1]) | (0x20 if constructed else 0) if kind.startswith("[") else UNIVERSAL[kind]
        first = head(tag, length)
        inside = offset + len(first)
        if constructed:
            value = b"\x00" if kind == "BIT STRING" else b""
            while len(value) < length:
                assert entries[at][0] == inside + len(value), (entries[at], inside + len(value))
                value += element()
        else:
            value = contents(kind, re.sub(r"[{}]", " ", rest))
        assert len(value) == length, (entries[at - 1], len(value))
        return first + value

    der = element()
    assert at == len(entries)
    return der


def pem(label, der):
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return f"-----BEGIN {label}-----\n" + "\n".join(lines) + f"\n-----END {label}-----\n"


def blocks(text):
    """The PEM sections of a text, their indentation taken away."""
    found = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.S)
    return [base64.b64decode(re.sub(r"\s", "", section)) for section in found]


def without_page_breaks(text):
    return re.sub(r"\n+[^\n]*\[Page \d+\]\n\f?\n?[^\n]*\n+", "\n", text)


def write(file, *sections):
    with open(file, "w", encoding="ascii") as out:
        out.write("".join(sections))
    print(file)


def joined(section, pattern):
    """The first value that `pattern` finds, its lines joined: none of these values has white space of its own."""
    return re.sub(r"\s", "", re.search(pattern, section, re.S | re.M).group(1))


def octet_arrays(section):
    """Every octet sequence that is printed "using JSON array notation", those in tables apart."""
    return [bytes(json.loads(array)) for array in re.findall(r"^ +(\[\d[\d,\s]*\])$", section, re.M)]


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def jws_examples(text):
    """RFC 7515 Appendices A and E, by section."""
    heads = list(re.finditer(r"^(?:(A\.[1-7])\.|Appendix ([BEF])\.)  ", text, re.M))
    heads = heads[next(i for i, found in reversed(list(enumerate(heads))) if found.group(1) == "A.1"):]
    bounds = [found.start() for found in heads] + [len(text)]
    examples = {}
    for number, found in enumerate(heads):
        section, name = text[bounds[number]:bounds[number + 1]], found.group(1) or found.group(2)
        example = {}
        if re.search(r'\{"kty":', section):
            example["jwk"] = json.loads(joined(section, r'(\{"kty":.*?\})'))
        if name in ("A.6", "A.7"):
            example["json"] = json.loads(joined(section, r'^     (\{\n +"payload":.*?^     \})'))
        elif name in ("A.1", "A.2", "A.3", "A.4", "A.5", "E"):
            complete = r"(?:complete JWS\s+representation using|The complete JWS that must be) .*?:\n\n(.*?)\n\n"
            example["compact"] = joined(section, complete)
        else:
            continue
        if name in ("A.1", "A.2", "A.3", "A.4"):
            header, payload, signature = map(decoded, example["compact"].split("."))
            printed = octet_arrays(section)
            assert header == printed[0], name
            assert payload in printed or name in ("A.2", "A.3"), name  # the payload of A.1, not printed again
            assert example["compact"].rpartition(".")[0].encode() in printed, name
            assert signature in printed or name in ("A.3", "A.4"), name  # as R and S, in a table
        examples[name] = example
    return examples


def thumbprint_example(text):
    """RFC 7638 §3.1."""
    section = text[text.rindex("\n3.1.  Example JWK"):text.rindex("\n3.2.  ")]
    example = {
        "jwk": json.loads(joined(section, r'^     (\{\n +"kty".*?^     \})')),
        "hashed": joined(section, r'^     (\{"e":.*?\})$'),
        "thumbprint": joined(section, r'used as a "kid" \(key ID\) value\) is:\s+(\S+)'),
    }
    hashed, thumbprint = octet_arrays(section)
    assert hashed == example["hashed"].encode() and thumbprint == decoded(example["thumbprint"])
    return example


def bound_certificate_example(text):
    """RFC 8705 Appendix A, Figures 5 and 7."""
    section = text[text.rindex("\nAppendix A."):text.rindex("\nAppendix B.")]
    return {
        "cnf": json.loads(joined(section, r'"cnf":(\{.*?\})')),
        "jwk": json.loads(joined(section, r'^ +(\{\s+"kty":.*?\})$')),
    }


def write_json(file, value):
    write(file, json.dumps(value, indent=2) + "\n")


folder = sys.argv[1]
rfc5280 = without_page_breaks(open(f"{folder}/rfc5280.txt", encoding="ascii", errors="replace").read())
for number, label, file in [
    (1, "CERTIFICATE", "rfc5280-c1-ca.pem"),
    (2, "CERTIFICATE", "rfc5280-c2-end-entity.pem"),
    (3, "CERTIFICATE", "rfc5280-c3-dsa.pem"),
    (4, "X509 CRL", "rfc5280-c4-crl.pem"),
]:
    section = rfc5280[re.search(rf"^C\.{number}\.  ", rfc5280, re.M).start():]
    dump = re.search(r"^ *0 +\d+: SEQUENCE \{\n.*?^ +:   \}$", section, re.M | re.S).group(0)
    write(file, pem(label, rebuild(dump)))
for rfc, file, appendix in [("rfc8705", "rfc8705-a.pem", "Appendix A"), ("rfc9440", "rfc9440-a.pem", "Appendix A")]:
    text = open(f"{folder}/{rfc}.txt", encoding="utf-8").read()
    section = without_page_breaks(text[text.rindex(f"\n{appendix}."):])
    write(file, *(pem("CERTIFICATE", der) for der in blocks(section)))
for rfc, file, examples in [
    ("rfc7515", "rfc7515.json", jws_examples),
    ("rfc7638", "rfc7638.json", thumbprint_example),
    ("rfc8705", "rfc8705-a.json", bound_certificate_example),
]:
    write_json(file, examples(without_page_breaks(open(f"{folder}/{rfc}.txt", encoding="utf-8").read())))
