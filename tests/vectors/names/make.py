#!/usr/bin/env python3
"""Writes the corpus of this folder: names as registered, names as certificates carry them, and whether they match.

Each case is stated here by hand. The DER is made by this script, which knows nothing of the server. Run it in this
folder after a change: `python3 make.py`.
"""

import json

# --- DER ---------------------------------------------------------------------------------------------------------------


def tlv(tag, contents):
    length = len(contents)
    if length < 0x80:
        head = bytes([tag, length])
    elif length < 0x100:
        head = bytes([tag, 0x81, length])
    else:
        head = bytes([tag, 0x82, length >> 8, length & 0xFF])
    return head + contents


def oid(dotted):
    arcs = [int(arc) for arc in dotted.split(".")]
    out = b""
    for arc in [arcs[0] * 40 + arcs[1]] + arcs[2:]:
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(0x80 | arc & 0x7F)
        out += bytes(reversed(octets))
    return tlv(0x06, out)


UTF8, NUMERIC, PRINTABLE, TELETEX, IA5 = 0x0C, 0x12, 0x13, 0x14, 0x16
VISIBLE, GENERAL, UNIVERSAL, BMP = 0x1A, 0x1B, 0x1C, 0x1E

TYPES = {
    "CN": "2.5.4.3",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "C": "2.5.4.6",
    "STREET": "2.5.4.9",
    "DC": "0.9.2342.19200300.100.1.25",
    "UID": "0.9.2342.19200300.100.1.1",
    "sn": "2.5.4.4",
    "serialNumber": "2.5.4.5",
    "title": "2.5.4.12",
    "description": "2.5.4.13",
    "businessCategory": "2.5.4.15",
    "postalCode": "2.5.4.17",
    "givenName": "2.5.4.42",
    "initials": "2.5.4.43",
    "generationQualifier": "2.5.4.44",
    "dnQualifier": "2.5.4.46",
    "organizationIdentifier": "2.5.4.97",
    "emailAddress": "1.2.840.113549.1.9.1",
}


def ava(kind, value, tag=None):
    """An AttributeTypeAndValue; text in UTF8String, or IA5String where the attribute is defined so."""
    if tag is None:
        tag = IA5 if kind in ("DC", "emailAddress") else UTF8
    if isinstance(value, str):
        coding = {BMP: "utf-16-be", UNIVERSAL: "utf-32-be", TELETEX: "latin-1"}.get(tag, "utf-8")
        value = value.encode(coding)
    return tlv(0x30, oid(TYPES.get(kind, kind)) + tlv(tag, value))


def rdn(*attributes):
    """A RelativeDistinguishedName, in the order DER demands."""
    return tlv(0x31, b"".join(sorted(attributes)))


def name(*rdns):
    """A Name from its root to its most specific RDN."""
    return tlv(0x30, b"".join(rdns))


def one(kind, value, tag=None):
    return rdn(ava(kind, value, tag))


def cn(value, tag=None):
    return name(one("CN", value, tag))


def plain(*attributes):
    """A Name of one attribute each, from its root: plain(("C", "DE"), ("CN", "client"))."""
    return name(*(one(*attribute) for attribute in attributes))


def alt(*names):
    return tlv(0x30, b"".join(names))


def email(text):
    return tlv(0x81, text if isinstance(text, bytes) else text.encode())


def dns(text):
    return tlv(0x82, text if isinstance(text, bytes) else text.encode())


def uri(text):
    return tlv(0x86, text if isinstance(text, bytes) else text.encode())


def ip(*octets):
    return tlv(0x87, bytes(octets))


# --- Cases -------------------------------------------------------------------------------------------------------------

MATCH, NO, RULE, NAME = "match", "no_match", "malformed_rule", "malformed_name"

cases = []
seen = set()


# What an explanation of the difference has to name, where a case does not say it itself.
EXPLAINED = {
    "reordered": ["dn/order/two-neighbours-swapped", "dn/order/rotated"],
    "grouped_otherwise": ["dn/multi/registered-as-two-rdns", "dn/multi/registered-as-one-rdn"],
    "case": [
        "dn/email-attribute/other-case-local", "dn/email-attribute/other-case-host",
        "uri/path-case", "uri/query-case", "uri/fragment-case", "uri/urn-namespace-case", "uri/urn-specific-case",
        "uri/urn-uuid-case", "uri/spiffe-path-case", "email/local-case",
    ],
    "last_character": ["uri/trailing-slash", "dns/trailing-dot-in-certificate"],
    "wildcard": ["dns/wildcard-in-certificate"],
    "address_mapped": ["ip/mapped-for-v4", "ip/v4-for-mapped"],
    "other_kind": [
        "ip/in-dns-name", "dns/common-name-alone", "email/subject-attribute-alone", "kind/dns-in-common-name",
        "kind/uri-in-common-name", "kind/ip-in-common-name", "kind/email-in-common-name", "kind/email-in-dns-name",
    ],
}  # fmt: skip


def case(id, attribute, registered, verdict, why, section, subject=None, alt_names=None, explained=None):
    assert id not in seen, id
    seen.add(id)
    row = {"id": id, "attribute": "tls_client_auth_" + attribute, "registered": registered}
    row["subject"] = (cn("client") if subject is None else subject).hex()
    if alt_names is not None:
        row["alt_names"] = alt_names.hex()
    row["verdict"] = verdict
    explained = explained or next((flag for flag, ids in EXPLAINED.items() if id in ids), None)
    if explained is not None:
        row["explained"] = explained
    row["why"] = why
    row["section"] = section
    cases.append(row)


def dn(id, registered, subject, verdict, why, section, explained=None):
    case("dn/" + id, "subject_dn", registered, verdict, why, section, subject=subject, explained=explained)


def san(kind):
    def write(id, registered, names, verdict, why, section, subject=None):
        alt_names = names if isinstance(names, bytes) else alt(*names)
        case(f"{kind}/{id}", "san_" + kind, registered, verdict, why, section, subject=subject, alt_names=alt_names)

    return write


def save(file):
    with open(file + ".json", "w", encoding="ascii") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in cases) + "\n]\n")
    print(f"{file}.json: {len(cases)} cases")
    cases.clear()


# --- Distinguished names: order and shape ------------------------------------------------------------------------------

S71, S4514_2, S4514_3 = "RFC 5280 §7.1", "RFC 4514 §2.1", "RFC 4514 §3"
full = plain(("C", "DE"), ("O", "Partner A"), ("OU", "Payments"), ("CN", "client"))
LAST_FIRST = "RFC 4514 writes the last RDN of the sequence first"
dn("order/as-written", "CN=client,OU=Payments,O=Partner A,C=DE", full, MATCH, LAST_FIRST, S4514_2)
dn("order/reversed", "C=DE,O=Partner A,OU=Payments,CN=client", full, NO, "the RDNs match in reversed order only", S71, "reversed")
dn("order/reversed-two", "C=DE,CN=client", plain(("C", "DE"), ("CN", "client")), NO, "the RDNs match in reversed order only", S71, "reversed")
dn("order/reversed-other-spelling", "C=de,O=PARTNER  A,OU=payments,CN=Client", full, NO, "reversed, case and spaces folded beside it", S71, "reversed")
dn("order/reversed-with-multi-valued", "C=DE,O=x+OU=y,CN=client", name(one("C", "DE"), rdn(ava("O", "x"), ava("OU", "y")), one("CN", "client")), NO, "the RDNs match in reversed order only, each a set", S71, "reversed")
dn("order/reversed-domain-components", "DC=com,DC=example,CN=client", plain(("DC", "com"), ("DC", "example"), ("CN", "client")), NO, "a domain is written from its most specific label", S4514_2, "reversed")
dn("order/two-neighbours-swapped", "CN=client,O=Partner A,OU=Payments,C=DE", full, NO, "matching RDNs have to appear in the same order", S71)
dn("order/rotated", "C=DE,CN=client,OU=Payments,O=Partner A", full, NO, "matching RDNs have to appear in the same order", S71)
dn("order/palindrome", "OU=a,CN=client,OU=a", plain(("OU", "a"), ("CN", "client"), ("OU", "a")), MATCH, "read either way it is the same name", S71)
dn("shape/most-specific-missing", "OU=Payments,O=Partner A,C=DE", full, NO, "the names have different numbers of RDNs", S71)
dn("shape/root-missing", "CN=client,OU=Payments,O=Partner A", full, NO, "the names have different numbers of RDNs", S71)
dn("shape/middle-missing", "CN=client,O=Partner A,C=DE", full, NO, "the names have different numbers of RDNs", S71)
dn("shape/one-more-registered", "CN=client,OU=Payments,O=Partner A,L=Berlin,C=DE", full, NO, "the names have different numbers of RDNs", S71)
dn("shape/common-name-alone", "CN=client", full, NO, "a common name inside a longer name is another name", S71)
dn("shape/other-type-same-value", "OU=client", cn("client"), NO, "the attribute types differ", S71)
dn("shape/one-letter-different", "CN=cliemt", cn("client"), NO, "the values differ", S71)
dn("shape/value-is-a-prefix", "CN=clien", cn("client"), NO, "the values differ", S71)
dn("shape/value-is-longer", "CN=clients", cn("client"), NO, "the values differ", S71)
dn("shape/empty-subject", "CN=client", name(), NO, "a certificate without a subject has no name to compare", S71)
dn("shape/rule-empty", "", name(), RULE, "RFC 4514 §3 allows an empty name; registered, it would name everyone without one", S4514_3)
dn("shape/ou-twice-in-order", "OU=b,OU=a", plain(("OU", "a"), ("OU", "b")), MATCH, LAST_FIRST, S4514_2)
dn("shape/ou-twice-swapped", "OU=a,OU=b", plain(("OU", "a"), ("OU", "b")), NO, "reversed: the same attribute twice, in another order", S71, "reversed")
dn("shape/rdn-repeated", "CN=client,OU=a,OU=a", plain(("OU", "a"), ("OU", "a"), ("CN", "client")), MATCH, "equal RDNs in a row are still two", S71)
dn("shape/rdn-repeated-once-too-few", "CN=client,OU=a", plain(("OU", "a"), ("OU", "a"), ("CN", "client")), NO, "the names have different numbers of RDNs", S71)

multi = name(one("C", "DE"), rdn(ava("CN", "client"), ava("serialNumber", "7", PRINTABLE)))
dn("multi/as-encoded", "CN=client+serialNumber=7,C=DE", multi, MATCH, "both attributes match", S71)
dn("multi/other-order-in-text", "serialNumber=7+CN=client,C=DE", multi, MATCH, "an RDN is a set", S71)
unsorted = name(one("C", "DE"), tlv(0x31, ava("serialNumber", "7", PRINTABLE) + ava("CN", "client")))
dn("multi/set-not-in-der-order", "CN=client+serialNumber=7,C=DE", unsorted, MATCH, "X.690 §11.6 orders a SET OF; some authorities do not, and a set has no order to mistake", S71)
dn("multi/one-attribute-missing-in-rule", "CN=client,C=DE", multi, NO, "the RDNs have different numbers of attributes", S71)
dn("multi/one-attribute-missing-in-certificate", "CN=client+serialNumber=7", cn("client"), NO, "the RDNs have different numbers of attributes", S71)
dn("multi/one-value-different", "CN=client+serialNumber=8,C=DE", multi, NO, "one attribute of the RDN has no match", S71)
dn("multi/registered-as-two-rdns", "CN=client,serialNumber=7,C=DE", multi, NO, "two RDNs are not one", S71)
dn("multi/registered-as-one-rdn", "CN=client+C=DE", plain(("C", "DE"), ("CN", "client")), NO, "one RDN is not two", S71)
dn("multi/values-exchanged", "CN=b+OU=a", name(rdn(ava("CN", "a"), ava("OU", "b"))), NO, "no attribute has a match", S71)
dn("multi/three", "OU=b+CN=a+O=c", name(rdn(ava("CN", "a"), ava("OU", "b"), ava("O", "c"))), MATCH, "an RDN is a set", S71)
dn("multi/one-type-twice", "CN=b+CN=a", name(rdn(ava("CN", "a"), ava("CN", "b"))), MATCH, "two values of one type in an RDN: each has its match", S71)
dn("multi/one-attribute-twice-in-rule", "CN=client+CN=CLIENT", cn("client"), RULE, "a set has no element twice", S71)
dn("multi/one-attribute-twice-in-certificate", "CN=client", name(tlv(0x31, ava("CN", "client") + ava("CN", "Client"))), NAME, "a set has no element twice: one reader counts two, another one", S71)
dn("multi/rfc4514-example", "OU=Sales+CN=J.  Smith,DC=example,DC=net", name(one("DC", "net"), one("DC", "example"), rdn(ava("OU", "Sales"), ava("CN", "J. Smith"))), MATCH, "an example of RFC 4514; two spaces compare as one", "RFC 4514 §4")
dn("multi/plus-is-a-value", r"CN=client\+O\=Bank", name(rdn(ava("CN", "client"), ava("O", "Bank"))), NO, "an escaped plus is part of a value", S4514_3)
dn("multi/value-has-a-plus", "CN=client+O=Bank", cn("client+O=Bank"), NO, "a plus inside a value separates nothing", S4514_3)

# --- Distinguished names: string types ---------------------------------------------------------------------------------

BOTH = "PrintableString and UTF8String compare alike once prepared"
OTHERS = "support for other string types is optional; here they match only the same type and octets"
dn("type/utf8", "CN=client", cn("client", UTF8), MATCH, BOTH, S71)
dn("type/printable", "CN=client", cn("client", PRINTABLE), MATCH, BOTH, S71)
dn("type/printable-other-case", "CN=client", cn("CLIENT", PRINTABLE), MATCH, BOTH, S71)
dn("type/hex-utf8-for-printable", "CN=#0c06636c69656e74", cn("client", PRINTABLE), MATCH, BOTH, S71)
dn("type/hex-printable-for-utf8", "CN=#1306636c69656e74", cn("client", UTF8), MATCH, BOTH, S71)
dn("type/hex-other-case", "CN=#1306434c49454e54", cn("client", UTF8), MATCH, "an encoded value is prepared as a written one is", S71)
dn("type/hex-digits-in-upper-case", "CN=#0C06636C69656E74", cn("client", UTF8), MATCH, "hexadecimal digits have no case", S4514_3)
for label, tag in [("teletex", TELETEX), ("bmp", BMP), ("universal", UNIVERSAL), ("ia5", IA5), ("visible", VISIBLE), ("general", GENERAL)]:
    encoded = ava("CN", "client", tag)[2 + len(oid("2.5.4.3")):]
    other_case = ava("CN", "Client", tag)[2 + len(oid("2.5.4.3")):]
    explained = None if label == "general" else "string_type"  # whose characters depend on escape sequences
    dn(f"type/{label}-by-text", "CN=client", cn("client", tag), NO, OTHERS, S71, explained)
    dn(f"type/{label}-by-hex", f"CN=#{encoded.hex()}", cn("client", tag), MATCH, "the same type and octets", S71)
    dn(f"type/{label}-by-hex-other-case", f"CN=#{other_case.hex()}", cn("client", tag), NO, OTHERS, S71)
    dn(f"type/{label}-by-hex-for-utf8", f"CN=#{encoded.hex()}", cn("client", UTF8), NO, OTHERS, S71, explained)
dn("type/numeric-by-text", "serialNumber=7", plain(("serialNumber", "7", NUMERIC)), NO, OTHERS, S71, "string_type")
dn("type/numeric-by-hex", "serialNumber=#120137", plain(("serialNumber", "7", NUMERIC)), MATCH, "the same type and octets", S71)
dn("type/teletex-latin-1", "CN=é", cn("é", TELETEX), NO, "whether a TeletexString is T.61 or Latin-1 is anybody's guess", S71, "string_type")
dn("type/bmp-beyond-ascii", "CN=é", cn("é", BMP), NO, OTHERS, S71, "string_type")
dn("type/printable-outside-its-set", "CN=a*b@c_d&e", cn("a*b@c_d&e", PRINTABLE), MATCH, "characters outside PrintableString's set occur in the wild, and ASCII is read by everyone alike", "RFC 5280 §4.1.2.4")
dn("type/printable-not-ascii", "CN=é", cn("é", PRINTABLE), NAME, "a PrintableString with octets above 127 has as many readings as readers", "RFC 5280 §4.1.2.4")
dn("type/ia5-not-ascii", "DC=a", plain(("DC", b"a\xe9")), NAME, "an IA5String is ASCII", "RFC 5280 §7.3")
dn("type/ia5-control-character", "DC=a", plain(("DC", b"a\n")), NAME, "where a control character stands, two readers part", "RFC 5280 §7.3")
dn("type/utf8-truncated", "CN=a", cn(b"a\xc3"), NAME, "not UTF-8", "RFC 5280 §7.1, RFC 3629 §3")
dn("type/utf8-overlong", "CN=a", cn(b"a\xc0\x80"), NAME, "an overlong form is not UTF-8", "RFC 5280 §7.1, RFC 3629 §3")
dn("type/utf8-overlong-slash", "CN=a/", cn(b"a\xc0\xaf"), NAME, "an overlong form is not UTF-8", "RFC 5280 §7.1, RFC 3629 §3")
dn("type/utf8-surrogate", "CN=a", cn(b"a\xed\xa0\x80"), NAME, "a surrogate is not UTF-8", "RFC 5280 §7.1, RFC 3629 §3")
dn("type/utf8-beyond-unicode", "CN=a", cn(b"a\xf5\x80\x80\x80"), NAME, "beyond U+10FFFF is not UTF-8", "RFC 5280 §7.1, RFC 3629 §3")
dn("type/utf8-latin-1", "CN=é", cn(b"\xe9"), NAME, "Latin-1 in a UTF8String is not UTF-8", "RFC 5280 §7.1, RFC 3629 §3")
dn("type/utf8-constructed", "CN=client", name(rdn(tlv(0x30, oid("2.5.4.3") + tlv(0x2C, tlv(UTF8, b"client"))))), NAME, "X.690 §10.2: DER has no constructed strings; a reader of BER would see `client`", "RFC 5280 §4.1")
dn("type/printable-constructed", "CN=client", name(rdn(tlv(0x30, oid("2.5.4.3") + tlv(0x33, tlv(PRINTABLE, b"client"))))), NAME, "X.690 §10.2: DER has no constructed strings", "RFC 5280 §4.1")
dn("type/octet-string", "1.3.6.1.4.1.1466.0=#04024869", name(rdn(ava("1.3.6.1.4.1.1466.0", b"Hi", 0x04))), MATCH, "an example of RFC 4514: the same type and octets", "RFC 4514 §4")
dn("type/bit-string", "2.5.4.45=#030200a0", name(rdn(ava("2.5.4.45", b"\x00\xa0", 0x03))), MATCH, "x500UniqueIdentifier: the same type and octets", S71)
dn("type/sequence", "2.5.4.16=#30030c0161", name(rdn(ava("2.5.4.16", tlv(UTF8, b"a"), 0x30))), MATCH, "postalAddress is a SEQUENCE: the same octets", S71)
dn("type/sequence-other-case", "2.5.4.16=#30030c0141", name(rdn(ava("2.5.4.16", tlv(UTF8, b"a"), 0x30))), NO, "postalAddress is a SEQUENCE: only the same octets", S71)
dn("type/context-tag", "CN=client", name(rdn(tlv(0x30, oid("2.5.4.3") + tlv(0x80, b"client")))), NAME, "no attribute is defined by a tag of its own class; others read nothing of such a name", "RFC 5280 §4.1.2.4")
dn("type/integer-for-string", "CN=7", name(rdn(ava("CN", b"\x07", 0x02))), NO, "an INTEGER is no string", S71)

# --- Distinguished names: case, normal form, spaces --------------------------------------------------------------------

FOLD, NFKC, SPACE = "RFC 5280 §7.1, RFC 3454 B.2", "RFC 4518 §2.3", "RFC 4518 §2.6.1"
for id, rule, value, verdict, why, section in [
    ("case/ascii", "CN=cLiEnT", "CLIENT", MATCH, "case is folded", FOLD),
    ("case/beyond-ascii", "CN=ÄÖÜ", "äöü", MATCH, "case is folded", FOLD),
    ("case/greek", "CN=ΑΒΓ", "αβγ", MATCH, "case is folded", FOLD),
    ("case/cyrillic", "CN=БАНК", "банк", MATCH, "case is folded", FOLD),
    ("case/final-sigma", "CN=ΟΔΟΣ", "οδος", MATCH, "final sigma folds to sigma", FOLD),
    ("case/sharp-s", "CN=STRASSE", "straße", MATCH, "sharp s folds to ss", FOLD),
    ("case/sharp-s-is-not-one-s", "CN=STRASE", "straße", NO, "sharp s folds to ss", FOLD),
    ("case/long-s", "CN=s", "ſ", MATCH, "long s folds to s", FOLD),
    ("case/dotless-i", "CN=i", "ı", NO, "dotless i folds to nothing else", FOLD),
    ("case/dotted-capital-i", "CN=i", "İ", NO, "dotted capital I folds to i and a combining dot", FOLD),
    ("case/dotted-capital-i-decomposed", "CN=i\u0307", "İ", MATCH, "dotted capital I folds to i and a combining dot", FOLD),
    ("case/kelvin", "CN=k", "\u212a", MATCH, "the kelvin sign folds to k", FOLD),
    ("case/micro", "CN=\u03bc", "\u00b5", MATCH, "the micro sign folds to mu", FOLD),
    ("case/title-case-digraph", "CN=\u01c6", "\u01c5", MATCH, "case is folded", FOLD),
    ("case/deseret", "CN=\U00010428", "\U00010400", MATCH, "case is folded beyond the basic plane", FOLD),
    ("nfkc/composed", "CN=é", "e\u0301", MATCH, "composed and decomposed are one", NFKC),
    ("nfkc/decomposed-rule", "CN=e\u0301", "é", MATCH, "composed and decomposed are one", NFKC),
    ("nfkc/angstrom", "CN=å", "\u212b", MATCH, "the angstrom sign is a letter", NFKC),
    ("nfkc/marks-in-any-order", "CN=a\u0323\u0302", "a\u0302\u0323", MATCH, "combining marks have a canonical order", NFKC),
    ("nfkc/hangul", "CN=\uac00", "\u1100\u1161", MATCH, "a syllable and its letters are one", NFKC),
    ("nfkc/ligature", "CN=fi", "\ufb01", MATCH, "compatibility: a ligature is its letters", NFKC),
    ("nfkc/full-width", "CN=client", "ｃｌｉｅｎｔ", MATCH, "compatibility: full-width letters", NFKC),
    ("nfkc/superscript", "CN=m2", "m²", MATCH, "compatibility: superscripts", NFKC),
    ("nfkc/roman-numeral", "CN=viii", "\u2167", MATCH, "compatibility: Roman numerals", NFKC),
    ("nfkc/circled", "CN=1", "\u2460", MATCH, "compatibility: circled digits", NFKC),
    ("nfkc/mathematical", "CN=a", "\U0001d400", MATCH, "compatibility: mathematical letters", NFKC),
    ("nfkc/fraction-is-not-a-slash", "CN=1/2", "½", NO, "a fraction's slash is U+2044", NFKC),
    ("nfkc/accent-counts", "CN=e", "é", NO, "an accent is not folded", NFKC),
    ("nfkc/double-letters", "CN=dž", "\u01c4", MATCH, "compatibility: a digraph is its letters", NFKC),
    ("nfkc/full-width-comma-is-a-value", r"CN=a\,b", "a，b", MATCH, "compatibility: it compares as a comma, and separates nothing", NFKC),
    ("look-alike/cyrillic", "CN=client", "с\u006cient", NO, "a letter of another script that looks the same is another letter", S71),
    ("look-alike/greek", "CN=o", "ο", NO, "a letter of another script that looks the same is another letter", S71),
    ("look-alike/digit-one", "CN=client", "c1ient", NO, "a digit is no letter", S71),
    ("look-alike/hyphen", "CN=a-b", "a\u2010b", NO, "a hyphen is no hyphen-minus", S71),
    ("look-alike/quote", "CN=a'b", "a\u2019b", NO, "an apostrophe is no quotation mark", S71),
    ("space/at-the-beginning", "CN=client", " client", MATCH, "spaces at the ends do not count", SPACE),
    ("space/at-the-end", "CN=client", "client  ", MATCH, "spaces at the ends do not count", SPACE),
    ("space/several-inside", "CN=client 7", "client   7", MATCH, "several spaces count as one", SPACE),
    ("space/several-inside-the-rule", "CN=client   7", "client 7", MATCH, "several spaces count as one", SPACE),
    ("space/none-inside", "CN=client7", "client 7", NO, "one space and none are not the same", SPACE),
    ("space/no-break", "CN=client 7", "client\u00a07", MATCH, "separators are mapped to space", "RFC 4518 §2.2"),
    ("space/ideographic", "CN=client 7", "client\u30007", MATCH, "separators are mapped to space", "RFC 4518 §2.2"),
    ("space/thin", "CN=client 7", "client\u20097", MATCH, "separators are mapped to space", "RFC 4518 §2.2"),
    ("space/line-separator", "CN=client 7", "client\u20287", MATCH, "separators are mapped to space", "RFC 4518 §2.2"),
    ("space/mixed-run", "CN=client 7", "client \u00a0\u3000 7", MATCH, "separators are mapped to space, and several count as one", SPACE),
    ("space/value-of-spaces-alone", "CN=", "   ", MATCH, "spaces alone are insignificant", SPACE),
    ("space/accent-on-a-space", "CN=a´", "a´", MATCH, "an acute accent is a space with a mark on it once normalised", SPACE),
    ("space/accent-on-a-space-after-a-space", "CN=a ´", "a´", NO, "a space that carries a mark is not insignificant", SPACE),
    ("space/accent-at-the-beginning", "CN=\u0301a", "´a", NO, "a space that carries a mark is not insignificant, and a mark alone is not one", SPACE),
    ("space/accent-decomposed", "CN=\\ \u0301a", "´a", MATCH, "the same characters once normalised", NFKC),
    ("space/accents-in-a-row", "CN=´ ´", "´´", NO, "the space between two accents counts", SPACE),
]:
    dn(id, rule, cn(value), verdict, why, section)

REFUSED = "a name with it is refused: what nobody can see can only deceive (stricter than the RFC)"
for label, character, why, section in [
    ("soft-hyphen", "\u00ad", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("zero-width-space", "\u200b", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("zero-width-non-joiner", "\u200c", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("zero-width-joiner", "\u200d", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("word-joiner", "\u2060", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("byte-order-mark", "\ufeff", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("variation-selector", "\ufe0f", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("grapheme-joiner", "\u034f", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("object-replacement", "\ufffc", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("nul", "\0", "mapped to nothing by the RFC; some readers end there", "RFC 4518 §2.2"),
    ("bell", "\u0007", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("delete", "\u007f", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("tab", "\t", "mapped to space by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("line-feed", "\n", "mapped to space by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("carriage-return", "\r", "mapped to space by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("next-line", "\u0085", "mapped to space by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("left-to-right-mark", "\u200e", "changes how text is shown; " + REFUSED, "RFC 4518 §2.2"),
    ("right-to-left-override", "\u202e", "changes how text is shown; " + REFUSED, "RFC 4518 §2.2"),
    ("language-tag", "\U000e0001", "mapped to nothing by the RFC; " + REFUSED, "RFC 4518 §2.2"),
    ("replacement-character", "\ufffd", "prohibited", "RFC 4518 §2.4"),
    ("private-use", "\ue000", "prohibited", "RFC 4518 §2.4"),
    ("private-use-plane-16", "\U00100000", "prohibited", "RFC 4518 §2.4"),
    ("non-character", "\ufffe", "prohibited", "RFC 4518 §2.4"),
    ("non-character-plane-1", "\U0001ffff", "prohibited", "RFC 4518 §2.4"),
    ("unassigned", "\u0378", "not assigned in Unicode 3.2, hence prohibited", "RFC 4518 §2.4"),
    ("assigned-since-capital-sharp-s", "\u1e9e", "not assigned in Unicode 3.2: nobody has said how it is folded", "RFC 4518 §2.4"),
    ("assigned-since-emoji", "\U0001f600", "not assigned in Unicode 3.2", "RFC 4518 §2.4"),
    ("assigned-since-currency", "\u20b9", "not assigned in Unicode 3.2", "RFC 4518 §2.4"),
]:
    dn(f"character/{label}", "CN=client", cn("cli" + character + "ent"), NAME, why, section)
    dn(f"character/{label}-in-rule", "CN=cli" + character + "ent", cn("client"), RULE, why, section)
dn("character/nul-before-another-name", "CN=client", cn("client\0.evil"), NAME, "a reader of C strings would see `client`", "RFC 4518 §2.2")

# --- Distinguished names: escapes --------------------------------------------------------------------------------------

ESC = "RFC 4514 §2.4"
for label, character in [("comma", ","), ("plus", "+"), ("quote", '"'), ("backslash", "\\"), ("less", "<"), ("greater", ">"), ("semicolon", ";"), ("equals", "="), ("sharp", "#"), ("space", " ")]:
    dn(f"escape/{label}-by-backslash", f"CN=a\\{character}b", cn(f"a{character}b"), MATCH, "a backslash and the character", ESC)
    dn(f"escape/{label}-by-hex", f"CN=a\\{ord(character):02X}b", cn(f"a{character}b"), MATCH, "a backslash and two hexadecimal digits", ESC)
for label, character in [("comma", ","), ("plus", "+"), ("quote", '"'), ("backslash", "\\"), ("less", "<"), ("greater", ">"), ("semicolon", ";")]:
    dn(f"escape/{label}-bare", f"CN=a{character}x", cn(f"a{character}x"), RULE, "the character has to be escaped", S4514_3)
for id, rule, value, verdict, why, section in [
    ("equals-bare", "CN=a=b", "a=b", MATCH, "an equals sign need not be escaped", S4514_3),
    ("sharp-bare-inside", "CN=a#b", "a#b", MATCH, "a number sign has to be escaped at the beginning only", ESC),
    ("sharp-bare-at-the-beginning", "CN=#client", "#client", RULE, "a value that begins with `#` is hexadecimal", S4514_3),
    ("sharp-at-the-beginning-by-backslash", r"CN=\#client", "#client", MATCH, "a backslash and the character", ESC),
    ("sharp-at-the-beginning-by-hex", r"CN=\23client", "#client", MATCH, "a backslash and two hexadecimal digits", ESC),
    ("text-that-looks-like-hex", "CN=#0c0161", "#0c0161", NO, "the rule is the value `a`, the certificate has seven characters", S4514_3),
    ("text-that-looks-like-hex-by-backslash", r"CN=\#0c0161", "#0c0161", MATCH, "a backslash and the character", ESC),
    ("space-at-the-beginning-by-backslash", r"CN=\ client", " client", MATCH, "a backslash and the character", ESC),
    ("space-at-the-beginning-by-hex", r"CN=\20client", " client", MATCH, "a backslash and two hexadecimal digits", ESC),
    ("space-at-the-beginning-not-in-certificate", r"CN=\20client", "client", MATCH, "spaces at the ends do not count once unescaped", SPACE),
    ("space-at-the-end-by-backslash", "CN=client\\ ", "client ", MATCH, "a backslash and the character", ESC),
    ("space-at-the-end-by-hex", r"CN=client\20", "client ", MATCH, "a backslash and two hexadecimal digits", ESC),
    ("space-at-the-beginning-bare", "CN= client", " client", RULE, "a leading space has to be escaped", S4514_3),
    ("space-at-the-end-bare", "CN=client ", "client ", RULE, "a trailing space has to be escaped", S4514_3),
    ("space-alone-by-backslash", "CN=\\ ", " ", MATCH, "an escaped space is both first and last", S4514_3),
    ("escaped-letter-by-hex", r"CN=\63lient", "client", MATCH, "other characters may be escaped", ESC),
    ("escaped-letter-by-backslash", r"CN=clie\nt", "client", RULE, "a letter has no escape of its own", S4514_3),
    ("hex-digits-in-lower-case", r"CN=a\2cb", "a,b", MATCH, "hexadecimal digits have no case", S4514_3),
    ("two-octets", r"CN=Lu\C4\8Di\C4\87", "Lučić", MATCH, "an example of RFC 4514: each octet is escaped", "RFC 4514 §4"),
    ("two-octets-one-escaped", "CN=Lu\\C4", "Lu", RULE, "half a character is not UTF-8", "RFC 4514 §3"),
    ("overlong", r"CN=a\C0\AF", "a/", RULE, "an overlong form is not UTF-8", "RFC 4514 §3"),
    ("one-digit", "CN=client\\4", "client", RULE, "a hexpair has two digits", S4514_3),
    ("no-digits", "CN=client\\", "client", RULE, "a backslash escapes something", S4514_3),
    ("not-digits", r"CN=client\zz", "client", RULE, "a hexpair has two hexadecimal digits", S4514_3),
    ("nul", r"CN=client\00", "client", RULE, "a name with a NUL is nobody's here", "RFC 4518 §2.2"),
    ("nul-between", r"CN=client\00.evil", "client", RULE, "a name with a NUL is nobody's here", "RFC 4518 §2.2"),
    ("carriage-return", r"CN=Before\0dAfter", "Before\rAfter", RULE, "an example of RFC 4514; a name with a control character is nobody's here", "RFC 4514 §4"),
    ("jim", r"CN=James \"Jim\" Smith\, III", 'James "Jim" Smith, III', MATCH, "an example of RFC 4514", "RFC 4514 §4"),
    ("quoted", 'CN="client"', "client", RULE, "quoted values are RFC 1779's", S4514_3),
    ("value-with-a-comma", "CN=client,O=Bank", "client,O=Bank", NO, "a comma inside a value separates nothing", S4514_3),
    ("value-with-an-escaped-comma", r"CN=client\,O=Bank", "client,O=Bank", MATCH, "a comma inside a value separates nothing", S4514_3),
    ("value-with-a-backslash", r"CN=a\2cb", r"a\2cb", NO, "unescaping happens once, and in text only", S4514_3),
    ("value-with-a-backslash-escaped", r"CN=a\5c2cb", r"a\2cb", MATCH, "unescaping happens once", S4514_3),
    ("double-backslash", r"CN=a\\2cb", r"a\2cb", MATCH, "unescaping happens once", S4514_3),
    ("hex-empty", "CN=#", "", RULE, "hexadecimal has one octet at least", S4514_3),
    ("hex-odd", "CN=#0", "", RULE, "hexadecimal has pairs of digits", S4514_3),
    ("hex-not-der", "CN=#0c0261", "a", RULE, "the octets are not an encoding", ESC),
    ("hex-long-length", "CN=#0c810161", "a", RULE, "DER takes the fewest octets for a length", ESC),
    ("hex-something-after", "CN=#0c016100", "a", RULE, "one value and nothing after it", ESC),
    ("hex-not-utf8", "CN=#0c01ff", "a", RULE, "a UTF8String is UTF-8", ESC),
    ("hex-constructed", "CN=#2c030c0161", "a", RULE, "X.690 §10.2: DER has no constructed strings", ESC),
]:
    dn(f"escape/{id}", rule, cn(value), verdict, why, section)

# --- Distinguished names: attribute types ------------------------------------------------------------------------------

for kind, dotted in TYPES.items():
    section = "RFC 4514 §3" if kind in ("CN", "L", "ST", "O", "OU", "C", "STREET", "DC", "UID") else "RFC 4519 §2"
    subject = plain((kind, "value 7")) if kind not in ("DC", "emailAddress") else plain((kind, "value.7"))
    text = "value 7" if kind not in ("DC", "emailAddress") else "value.7"
    dn(f"attribute/{kind}-by-name", f"{kind}={text}", subject, MATCH, "the short name stands for the type", section)
    encoded = tlv(IA5 if kind in ("DC", "emailAddress") else UTF8, text.encode()).hex()
    dn(f"attribute/{kind}-by-number", f"{dotted}=#{encoded}", subject, MATCH, "the dotted form names the same type", "RFC 4514 §2.3")
for id, rule, subject, verdict, why, section in [
    ("name-in-other-case", "cn=client,o=x", plain(("O", "x"), ("CN", "client")), MATCH, "descriptors have no case", "RFC 4512 §2.5"),
    ("organizationidentifier-in-other-case", "ORGANIZATIONIDENTIFIER=x", plain(("organizationIdentifier", "x")), MATCH, "descriptors have no case", "RFC 4512 §2.5"),
    ("long-name", "commonName=client,organizationName=x,surname=y,userid=z", plain(("UID", "z"), ("sn", "y"), ("O", "x"), ("CN", "client")), MATCH, "names that RFC 4519 registers beside the short ones", "RFC 4519 §4"),
    ("openssl-gn", "GN=client", plain(("givenName", "client")), MATCH, "what OpenSSL prints for givenName", S4514_3),
    ("jurisdiction", "jurisdictionC=de", plain(("1.3.6.1.4.1.311.60.2.1.3", "DE", PRINTABLE)), MATCH, "what OpenSSL prints for an attribute of extended validation", S4514_3),
    ("unique-identifier", "x500UniqueIdentifier=#030200a0", name(rdn(ava("2.5.4.45", b"\x00\xa0", 0x03))), MATCH, "a BIT STRING is written as its encoding", "RFC 4514 §2.4"),
    ("unique-identifier-with-text", "x500UniqueIdentifier='1010'B", name(rdn(ava("2.5.4.45", b"\x00\xa0", 0x03))), RULE, "a BIT STRING is written as its encoding", "RFC 4514 §2.4"),
    ("known-number-with-text", "2.5.4.3=client", cn("client"), MATCH, "the type is known, so its syntax is", S4514_3),
    ("unknown-number", "1.2.3.4=#0c0161", name(one("1.2.3.4", "a")), MATCH, "the dotted form and an encoded value", "RFC 4514 §2.4"),
    ("unknown-number-other-case", "1.2.3.4=#0c0141", name(one("1.2.3.4", "a")), MATCH, "in PrintableString and UTF8String every attribute is prepared", S71),
    ("unknown-number-printable", "1.2.3.4=#130161", name(one("1.2.3.4", "a")), MATCH, BOTH, S71),
    ("unknown-number-another", "1.2.3.5=#0c0161", name(one("1.2.3.4", "a")), NO, "the attribute types differ", S71),
    ("unknown-number-with-text", "1.2.3.4=a", name(one("1.2.3.4", "a")), RULE, "its syntax is not known, so text would be a guess", "RFC 4514 §2.4"),
    ("large-arcs", "2.999.1=#0c0161", name(one("2.999.1", "a")), MATCH, "arcs are as wide as they come", "RFC 4514 §2.3"),
    ("uuid-arc", "2.25.340282366920938463463374607431768211455=#0c0161", name(one("2.25.340282366920938463463374607431768211455", "a")), MATCH, "a UUID is an arc of 128 bits", "RFC 4514 §2.3"),
    ("arc-too-wide", "2.25.680564733841876926926749214863536422912=#0c0161", name(one("2.25.680564733841876926926749214863536422912", "a")), RULE, "wider than a UUID: no registered type is", "RFC 4514 §2.3"),
    ("arc-too-wide-in-certificate", "CN=client", name(one("2.25.680564733841876926926749214863536422912", "a"), one("CN", "client")), NAME, "wider than a UUID: no registered type is", "RFC 4514 §2.3"),
    ("unknown-name", "nobody=client", cn("client"), RULE, "the short name is not known", S4514_3),
    ("no-name", "=client", cn("client"), RULE, "a type is missing", S4514_3),
    ("leading-zero", "2.5.4.03=#0c0161", cn("a"), RULE, "numbers have no leading zeros", "RFC 4512 §1.4"),
    ("dot-at-the-end", "2.5.4.3.=#0c0161", cn("a"), RULE, "a number is missing", "RFC 4512 §1.4"),
    ("root-arc-three", "3.1.1=#0c0161", cn("a"), RULE, "there are the roots 0, 1 and 2", "RFC 4512 §1.4"),
    ("second-arc-forty", "1.40.1=#0c0161", cn("a"), RULE, "below the roots 0 and 1 there are 40 arcs", "RFC 4512 §1.4"),
    ("one-arc", "2=#0c0161", cn("a"), RULE, "an object identifier has two arcs at least", "RFC 4512 §1.4"),
    ("oid-prefix", "OID.2.5.4.3=client", cn("client"), RULE, "`OID.` is RFC 1779's", S4514_3),
    ("space-before-type", " CN=client", cn("client"), RULE, "no spaces stand around types", S4514_3),
    ("space-after-type", "CN =client", cn("client"), RULE, "no spaces stand around types", S4514_3),
    ("space-after-comma", "CN=client, O=x", plain(("O", "x"), ("CN", "client")), RULE, "no spaces stand around separators", S4514_3),
    ("space-before-comma", "CN=client ,O=x", plain(("O", "x"), ("CN", "client")), RULE, "no spaces stand around separators", S4514_3),
    ("openssl-one-line", "/O=x/CN=client", plain(("O", "x"), ("CN", "client")), RULE, "slashes are not RFC 4514's", S4514_3),
    ("openssl-default", "O = x, CN = client", plain(("O", "x"), ("CN", "client")), RULE, "no spaces stand around separators", S4514_3),
    ("semicolon-separates", "CN=client;O=x", plain(("O", "x"), ("CN", "client")), RULE, "semicolons are RFC 1779's", S4514_3),
    ("comma-at-the-end", "CN=client,", cn("client"), RULE, "an RDN is missing", S4514_3),
    ("comma-at-the-beginning", ",CN=client", cn("client"), RULE, "an RDN is missing", S4514_3),
    ("comma-twice", "CN=client,,O=x", plain(("O", "x"), ("CN", "client")), RULE, "an RDN is missing", S4514_3),
    ("plus-at-the-end", "CN=client+", cn("client"), RULE, "an attribute is missing", S4514_3),
    ("value-alone", "client", cn("client"), RULE, "a type is missing", S4514_3),
    ("value-empty", "CN=", cn(""), MATCH, "an empty value is a value", S4514_3),
    ("value-empty-in-rule", "CN=", cn("client"), NO, "the values differ", S71),
    ("value-empty-in-certificate", "CN=client", cn(""), NO, "the values differ", S71),
    ("value-empty-beside-another", "CN=,O=x", plain(("O", "x"), ("CN", "")), MATCH, "an empty value is a value", S4514_3),
]:
    dn(f"attribute/{id}", rule, subject, verdict, why, section)

# --- Distinguished names: domain components, e-mail, identifiers -------------------------------------------------------

S73 = "RFC 5280 §7.3"
dc = plain(("DC", "com"), ("DC", "Example"), ("CN", "client"))
for id, rule, subject, verdict, why, section, explained in [
    ("same-case", "CN=client,DC=Example,DC=com", dc, MATCH, "a domain component per label", S73, None),
    ("other-case", "CN=client,DC=EXAMPLE,DC=COM", dc, MATCH, "domain components are compared without case", S73, None),
    ("hex-other-case", "CN=client,DC=#16074558414d504c45,DC=com", dc, MATCH, "domain components are compared without case", S73, None),
    ("other-label", "CN=client,DC=Examples,DC=com", dc, NO, "the values differ", S73, None),
    ("a-label-other-case", "DC=XN--BCHER-KVA", plain(("DC", "xn--bcher-kva")), MATCH, "A-labels are compared without case", S73, None),
    ("u-label-in-rule", "DC=bücher", plain(("DC", "xn--bcher-kva")), RULE, "an IA5String is ASCII: the rule is written as an A-label", S73, None),
    ("space-counts", "DC=a b", plain(("DC", "a  b")), NO, "an exact match but for case: spaces are not folded", S73, None),
    ("whole-domain-in-one", "DC=example.com", plain(("DC", "com"), ("DC", "example")), NO, "each domain component is one label", S73, None),
    ("utf8", "DC=example", plain(("DC", "example", UTF8)), NO, "a domain component is an IA5String; another type matches only itself", S73, "string_type"),
    ("utf8-by-hex", "DC=#0c076578616d706c65", plain(("DC", "example", UTF8)), MATCH, "the same type and octets", S71, None),
    ("printable-by-hex-utf8", "DC=#0c076578616d706c65", plain(("DC", "EXAMPLE", PRINTABLE)), MATCH, BOTH, S71, None),
]:
    dn(f"domain-component/{id}", rule, subject, verdict, why, section, explained)
EXACT = "its own matching rule is optional (§7.1) and §8 warns of it: two mailboxes may be told apart by case; here only the same octets match"
mail = plain(("emailAddress", "Ops@a.example"))
for id, rule, subject, verdict, why, section, explained in [
    ("same-octets", "emailAddress=Ops@a.example", mail, MATCH, "the same octets", S71, None),
    ("other-case-local", "emailAddress=ops@a.example", mail, NO, EXACT, "RFC 5280 §4.1.2.6, §7.1, §8", None),
    ("other-case-host", "emailAddress=Ops@A.example", mail, NO, EXACT, "RFC 5280 §4.1.2.6, §7.1, §8", None),
    ("utf8", "emailAddress=Ops@a.example", plain(("emailAddress", "Ops@a.example", UTF8)), NO, OTHERS, S71, "string_type"),
    ("by-number", "1.2.840.113549.1.9.1=#160d4f707340612e6578616d706c65", mail, MATCH, "the same type and octets", S71, None),
    ("short-e", "E=Ops@a.example", mail, RULE, "E is no registered descriptor", S4514_3, None),
    ("is-no-alternative-name", "CN=Ops@a.example", mail, NO, "the attribute types differ", S71, None),
]:
    dn(f"email-attribute/{id}", rule, subject, verdict, why, section, explained)
for id, rule, subject, verdict, why, section in [
    ("serial-number-other-case", "serialNumber=hrb-7a", plain(("serialNumber", "HRB-7A", PRINTABLE)), MATCH, "caseIgnoreMatch", S71),
    ("serial-number-leading-zero", "serialNumber=7", plain(("serialNumber", "07", PRINTABLE)), NO, "it is text, not a number", S71),
    ("serial-number-hyphen", "serialNumber=12", plain(("serialNumber", "1-2", PRINTABLE)), NO, "a hyphen counts", S71),
    ("organization-identifier", "organizationIdentifier=PSDDE-BAFIN-123456", plain(("organizationIdentifier", "PSDDE-BAFIN-123456")), MATCH, "as ETSI EN 319 412-1 §5.1.4 writes it", S71),
    ("organization-identifier-printable", "organizationIdentifier=psdde-bafin-123456", plain(("organizationIdentifier", "PSDDE-BAFIN-123456", PRINTABLE)), MATCH, BOTH, S71),
    ("organization-identifier-another", "organizationIdentifier=PSDDE-BAFIN-123457", plain(("organizationIdentifier", "PSDDE-BAFIN-123456")), NO, "the values differ", S71),
    ("country-other-case", "C=de", plain(("C", "DE", PRINTABLE)), MATCH, "caseIgnoreMatch", S71),
    ("legal-entity", "serialNumber=HRB 86891+CN=client,organizationIdentifier=NTRDE-HRB86891,O=Partner A GmbH,L=Berlin,C=DE", name(one("C", "DE", PRINTABLE), one("L", "Berlin"), one("O", "Partner A GmbH"), one("organizationIdentifier", "NTRDE-HRB86891"), rdn(ava("CN", "client"), ava("serialNumber", "HRB 86891", PRINTABLE))), MATCH, "a name as a qualified certificate has it", S71),
]:
    dn(f"identifier/{id}", rule, subject, verdict, why, section)

# --- Distinguished names: length and encoding --------------------------------------------------------------------------

dn("length/value-of-64", "CN=" + "a" * 64, cn("a" * 64), MATCH, "ub-common-name", "RFC 5280 A.1")
dn("length/value-of-65", "CN=" + "a" * 65, cn("a" * 65), MATCH, "upper bounds bind authorities; comparing needs none", "RFC 5280 A.1")
dn("length/value-of-1000", "CN=" + "a" * 1000, cn("a" * 1000), MATCH, "upper bounds bind authorities; comparing needs none", "RFC 5280 A.1")
dn("length/value-of-1000-last-different", "CN=" + "a" * 1000, cn("a" * 999 + "b"), NO, "the values differ in their last character", S71)
many = plain(*[("OU", f"unit {number}") for number in range(50)])
dn("length/fifty-rdns", ",".join(f"OU=unit {number}" for number in reversed(range(50))), many, MATCH, "names may be long", S71)
dn("length/fifty-rdns-reversed", ",".join(f"OU=unit {number}" for number in range(50)), many, NO, "the RDNs match in reversed order only", S71, "reversed")
assert len(cn("a" * 4075)) == 4096
dn("length/subject-of-4096", "CN=" + "a" * 4075, cn("a" * 4075), MATCH, "the longest subjects that are read have 4,096 octets", S71)
dn("length/subject-of-4097", "CN=" + "a" * 4076, cn("a" * 4076), NAME, "longer subjects are not read", S71)
dn("length/text-of-4096", "CN=" + "a" * 4093, cn("a" * 4075), NO, "the longest text that is read; the values differ", S71)
dn("length/text-of-4097", "CN=" + "a" * 4094, cn("a" * 4075), RULE, "longer texts are no names here", S71)
dn("length/grows-when-prepared", "CN=client", plain(("OU", "\ufdfa" * 300), ("CN", "client")), NAME, "one character becomes eighteen: what then is too long is not read", NFKC)
for id, subject, why in [
    ("empty-rdn", tlv(0x30, tlv(0x31, b"")), "a set of attributes has one at least"),
    ("empty-rdn-after-a-good-one", tlv(0x30, one("CN", "client") + tlv(0x31, b"")), "a set of attributes has one at least"),
    ("rdn-is-a-sequence", tlv(0x30, tlv(0x30, ava("CN", "client"))), "an RDN is a SET"),
    ("attribute-without-value", name(rdn(tlv(0x30, oid("2.5.4.3")))), "an attribute has a type and a value"),
    ("attribute-with-two-values", name(rdn(tlv(0x30, oid("2.5.4.3") + tlv(UTF8, b"client") + tlv(UTF8, b"evil")))), "an attribute has a type and a value"),
    ("attribute-type-is-no-oid", name(rdn(tlv(0x30, tlv(UTF8, b"CN") + tlv(UTF8, b"client")))), "a type is an object identifier"),
    ("attribute-type-not-minimal", name(rdn(tlv(0x30, tlv(0x06, b"\x55\x04\x80\x03") + tlv(UTF8, b"client")))), "X.690 §8.19.2: arcs take the fewest octets"),
    ("attribute-type-truncated", name(rdn(tlv(0x30, tlv(0x06, b"\x55\x84") + tlv(UTF8, b"client")))), "the last arc does not end"),
    ("value-length-too-long-a-form", name(rdn(tlv(0x30, oid("2.5.4.3") + b"\x0c\x81\x06client"))), "X.690 §10.1: lengths take the fewest octets"),
    ("value-indefinite", name(rdn(tlv(0x30, oid("2.5.4.3") + b"\x2c\x80\x0c\x06client\x00\x00"))), "X.690 §10.1: DER has no indefinite lengths"),
    ("value-beyond-its-end", name(rdn(tlv(0x30, oid("2.5.4.3") + b"\x0c\x20client"))), "the value is longer than what it is in"),
    ("null-after-the-rdns", tlv(0x30, one("CN", "client") + b"\x05\x00"), "a Name has RDNs and nothing else"),
]:
    dn(f"encoding/{id}", "CN=client", subject, NAME, why, "RFC 5280 §4.1.2.4, §4.1")
save("distinguished_name")

# --- dNSName -----------------------------------------------------------------------------------------------------------

S72, S4216 = "RFC 5280 §7.2", "RFC 5280 §4.2.1.6"
write = san("dns")
host = [dns("client.a.example")]
label63 = "a" * 63
long253 = ".".join(["a" * 49] * 5) + ".abc"
assert len(long253) == 253
for id, rule, names, verdict, why, section in [
    ("same", "client.a.example", host, MATCH, "the whole name", S72),
    ("other-case", "CLIENT.a.Example", host, MATCH, "compared without case", S72),
    ("other-case-in-certificate", "client.a.example", [dns("Client.A.EXAMPLE")], MATCH, "compared without case", S72),
    ("below", "a.client.a.example", host, NO, "an exact match on the entire name", S72),
    ("above", "a.example", host, NO, "an exact match on the entire name", S72),
    ("ends-alike", "client.a.example", [dns("xclient.a.example")], NO, "an exact match on the entire name", S72),
    ("begins-alike", "client.a.example", [dns("client.a.example.evil.example")], NO, "an exact match on the entire name", S72),
    ("trailing-dot-in-rule", "client.a.example.", host, RULE, "the preferred name syntax has no dot at the end", S4216),
    ("trailing-dot-in-certificate", "client.a.example", [dns("client.a.example.")], NO, "the preferred name syntax has no dot at the end: such a name matches nothing", S4216),
    ("leading-dot-in-rule", ".a.example", host, RULE, "a suffix is no name", S4216),
    ("leading-dot-in-certificate", "a.example", [dns(".a.example")], NO, "a suffix is no name", S4216),
    ("two-dots", "client..example", host, RULE, "a label has one character at least", S4216),
    ("empty-rule", "", host, RULE, "a name has one character at least", S4216),
    ("empty-in-certificate", "client.a.example", [dns("")], NO, "an empty name names nobody", S4216),
    ("single-space-in-certificate", "client.a.example", [dns(" ")], NO, "RFC 5280 forbids \" \" by name", S4216),
    ("wildcard-rule", "*.a.example", host, RULE, "no wildcards: a rule names one client", S4216),
    ("wildcard-in-certificate", "client.a.example", [dns("*.a.example")], NO, "no wildcards: a certificate for everyone names nobody", S4216),
    ("wildcard-on-both-sides", "*.a.example", [dns("*.a.example")], RULE, "no wildcards", S4216),
    ("wildcard-inside-a-label", "client.a.example", [dns("cl*.a.example")], NO, "no wildcards", S4216),
    ("underscore-rule", "my_client.a.example", [dns("my_client.a.example")], RULE, "letters, digits and hyphens", S4216),
    ("underscore-in-certificate", "my-client.a.example", [dns("my_client.a.example")], NO, "letters, digits and hyphens", S4216),
    ("hyphen-at-a-labels-beginning", "-a.example", [dns("-a.example")], RULE, "a hyphen stands inside a label", S4216),
    ("hyphen-at-a-labels-end", "a-.example", [dns("a-.example")], RULE, "a hyphen stands inside a label", S4216),
    ("hyphens-inside", "a--b.example", [dns("a--b.example")], MATCH, "hyphens may stand together", S4216),
    ("label-of-63", label63 + ".example", [dns(label63 + ".example")], MATCH, "the longest label", S4216),
    ("label-of-64", label63 + "a.example", [dns(label63 + "a.example")], RULE, "longer than any label", S4216),
    ("label-of-64-in-certificate", label63 + ".example", [dns(label63 + "a.example")], NO, "longer than any label", S4216),
    ("name-of-253", long253, [dns(long253)], MATCH, "the longest name", S4216),
    ("name-of-254", long253 + "d", [dns(long253 + "d")], RULE, "longer than any name", S4216),
    ("one-label", "localhost", [dns("localhost")], MATCH, "a name of one label is a name", S4216),
    ("digits-in-front", "1and1.example", [dns("1and1.example")], MATCH, "RFC 1123 §2.1: a label may begin with a digit", S4216),
    ("digits-at-the-end", "a.1", [dns("a.1")], RULE, "RFC 1123 §2.1: the last label of a name is not all digits", S4216),
    ("ipv4-rule", "192.0.2.7", [dns("192.0.2.7")], RULE, "an address is no DNS name", S4216),
    ("ipv4-in-certificate", "client.a.example", [dns("192.0.2.7"), dns("client.a.example")], MATCH, "another name beside it changes nothing", S4216),
    ("port", "client.a.example:443", host, RULE, "a port is no part of a name", S4216),
    ("uri", "https://client.a.example/", host, RULE, "a URI is no DNS name", S4216),
    ("space-inside", "client a.example", host, RULE, "letters, digits and hyphens", S4216),
    ("space-at-the-end-in-certificate", "client.a.example", [dns("client.a.example ")], NO, "letters, digits and hyphens", S4216),
    ("a-label", "xn--bcher-kva.example", [dns("xn--bcher-kva.example")], MATCH, "an internationalised name is stored in ACE", S72),
    ("a-label-other-case", "XN--BCHER-KVA.example", [dns("xn--bcher-kva.example")], MATCH, "compared without case", S72),
    ("u-label-rule", "bücher.example", [dns("xn--bcher-kva.example")], RULE, "the rule is written as it is stored: which version of IDNA maps it is not guessed", S72),
    ("u-label-in-certificate", "xn--bcher-kva.example", [dns("bücher.example")], NAME, "an IA5String is ASCII", S72),
    ("a-label-look-alike", "apple.example", [dns("xn--pple-43d.example")], NO, "another name, whatever it looks like", S72),
    ("a-label-is-not-decoded", "xn--a.example", [dns("xn--a.example")], MATCH, "compared as octets; whether Punycode decodes it is not asked", S72),
    ("ideographic-full-stop", "client。example", [dns("client.example")], RULE, "separators are U+002E", S72),
    ("full-width-rule", "ｃlient.example", [dns("client.example")], RULE, "letters, digits and hyphens", S72),
    ("kelvin-sign-rule", "\u212a.example", [dns("k.example")], RULE, "ASCII case only", S72),
    ("nul-in-certificate", "client.a.example", [dns("client.a.example\0.evil.example")], NAME, "a reader of C strings would see `client.a.example`", S4216),
    ("line-feed-in-certificate", "client.a.example", [dns("client.a.example\n")], NAME, "a control character", S4216),
    ("delete-in-certificate", "client.a.example", [dns("client.a.example\x7f")], NAME, "a control character", S4216),
    ("second-of-two", "client.a.example", [dns("other.a.example"), dns("client.a.example")], MATCH, "any of the names of its kind", "RFC 8705 §2.1.2"),
    ("twice", "client.a.example", [dns("client.a.example"), dns("client.a.example")], MATCH, "the same name twice is one name", "RFC 8705 §2.1.2"),
    ("last-of-a-hundred", "client.a.example", [dns(f"c{number}.a.example") for number in range(99)] + host, MATCH, "a hundred names are read", "RFC 8705 §2.1.2"),
    ("hundred-and-one", "client.a.example", [dns(f"c{number}.a.example") for number in range(100)] + host, NAME, "more names than anyone needs", "RFC 8705 §2.1.2"),
    ("bad-name-beside-it", "client.a.example", host + [dns(b"\xff")], NAME, "a certificate of which one name cannot be read has none", S4216),
]:
    write(id, rule, names, verdict, why, section)
case("dns/common-name-alone", "san_dns", "client.a.example", NO, "a common name is no alternative name", "RFC 8705 §2.1.2", subject=cn("client.a.example"))
save("dns")

# --- iPAddress ---------------------------------------------------------------------------------------------------------

write = san("ip")
v4 = [ip(192, 0, 2, 7)]
v6 = [ip(0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7)]
mapped = [ip(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7)]
compatible = [ip(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7)]
nat64 = [ip(0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7)]
OCTETS = "addresses are compared as octets"
for id, rule, names, verdict, why in [
    ("v4", "192.0.2.7", v4, MATCH, OCTETS),
    ("v4-another", "192.0.2.8", v4, NO, OCTETS),
    ("v4-reversed", "7.2.0.192", v4, NO, OCTETS),
    ("v4-zero", "0.0.0.0", [ip(0, 0, 0, 0)], MATCH, OCTETS),
    ("v4-leading-zero", "192.0.2.07", v4, RULE, "some read it as octal"),
    ("v4-hexadecimal", "0xC0000207", v4, RULE, "not a dotted address"),
    ("v4-one-number", "3221225991", v4, RULE, "not a dotted address"),
    ("v4-three-numbers", "192.0.519", v4, RULE, "not a dotted address"),
    ("v4-too-large", "192.0.2.256", v4, RULE, "an octet ends at 255"),
    ("v4-prefix", "192.0.2.7/32", v4, RULE, "a network is no address"),
    ("v4-port", "192.0.2.7:443", v4, RULE, "a port is no part of an address"),
    ("v4-space", "192.0.2.7 ", v4, RULE, "not an address"),
    ("v4-wide-digits", "１９２.0.2.7", v4, RULE, "digits are ASCII"),
    ("v6", "2001:db8::7", v6, MATCH, OCTETS),
    ("v6-in-full", "2001:0db8:0000:0000:0000:0000:0000:0007", v6, MATCH, OCTETS),
    ("v6-upper-case", "2001:DB8::7", v6, MATCH, OCTETS),
    ("v6-compressed-elsewhere", "2001:db8:0:0::7", v6, MATCH, OCTETS),
    ("v6-dotted-end", "2001:db8::0.0.0.7", v6, MATCH, OCTETS),
    ("v6-another", "2001:db8::8", v6, NO, OCTETS),
    ("v6-zone", "fe80::1%eth0", [ip(0xFE, 0x80, *[0] * 13, 1)], RULE, "a zone means something on one host only"),
    ("v6-zone-number", "fe80::1%1", [ip(0xFE, 0x80, *[0] * 13, 1)], RULE, "a zone means something on one host only"),
    ("v6-link-local", "fe80::1", [ip(0xFE, 0x80, *[0] * 13, 1)], MATCH, OCTETS),
    ("v6-brackets", "[2001:db8::7]", v6, RULE, "brackets belong to URIs"),
    ("v6-two-gaps", "2001::db8::7", v6, RULE, "not an address"),
    ("v6-unspecified", "::", [ip(*[0] * 16)], MATCH, OCTETS),
    ("mapped-for-v4", "192.0.2.7", mapped, NO, "an IPv4-mapped IPv6 address has sixteen octets: it is not the IPv4 address"),
    ("v4-for-mapped", "::ffff:192.0.2.7", v4, NO, "an IPv4-mapped IPv6 address has sixteen octets: it is not the IPv4 address"),
    ("mapped", "::ffff:192.0.2.7", mapped, MATCH, OCTETS),
    ("mapped-in-hexadecimal", "::ffff:c000:207", mapped, MATCH, OCTETS),
    ("compatible-for-v4", "192.0.2.7", compatible, NO, "sixteen octets are not four"),
    ("compatible", "::192.0.2.7", compatible, MATCH, OCTETS),
    ("nat64-for-v4", "192.0.2.7", nat64, NO, "sixteen octets are not four"),
    ("second-of-two", "192.0.2.7", [ip(192, 0, 2, 6), ip(192, 0, 2, 7)], MATCH, "any of the names of its kind"),
    ("network", "192.0.2.0", [ip(192, 0, 2, 0, 255, 255, 255, 0)], NAME, "eight octets are a name constraint's"),
    ("v6-network", "2001:db8::", [ip(*[0x20, 0x01, 0x0D, 0xB8] + [0] * 12 + [255] * 16)], NAME, "32 octets are a name constraint's"),
    ("no-octets", "192.0.2.7", [ip()], NAME, "neither four nor sixteen octets"),
    ("five-octets", "192.0.2.7", [ip(192, 0, 2, 7, 0)], NAME, "neither four nor sixteen octets"),
    ("fifteen-octets", "2001:db8::7", [ip(*[1] * 15)], NAME, "neither four nor sixteen octets"),
    ("text-in-octets", "192.0.2.7", [tlv(0x87, b"192.0.2.7")], NAME, "an address is octets, not text"),
    ("text-of-sixteen-octets", "192.0.2.7", [tlv(0x87, b"192.000.002.0007")], NO, "sixteen octets are an IPv6 address, whatever they spell"),
    ("in-dns-name", "192.0.2.7", [dns("192.0.2.7")], NO, "another kind of name"),
    ("in-uri", "192.0.2.7", [uri("https://192.0.2.7/")], NO, "another kind of name"),
    ("host-name", "client.a.example", v4, RULE, "a name is no address"),
    ("empty", "", v4, RULE, "not an address"),
]:
    write(id, rule, names, verdict, why, S4216 if names is not mapped else "RFC 5280 §4.2.1.6, RFC 4291 §2.5.5.2")
save("ip")

# --- uniformResourceIdentifier -----------------------------------------------------------------------------------------

write = san("uri")
S74 = "RFC 5280 §7.4"
PLAIN = "a URI that is not in normal form matches nothing: one URI has one spelling"
page = [uri("https://a.example/Client?Q=1#F")]
for id, rule, names, verdict, why, section in [
    ("same", "https://a.example/Client?Q=1#F", page, MATCH, "the same URI", S74),
    ("scheme-case", "HTTPS://a.example/Client?Q=1#F", page, MATCH, "the scheme is compared in lower case", S74),
    ("scheme-case-in-certificate", "https://a.example/x", [uri("HTTPS://a.example/x")], MATCH, "the scheme is compared in lower case", S74),
    ("host-case", "https://A.EXAMPLE/Client?Q=1#F", page, MATCH, "the host is compared in lower case", S74),
    ("host-case-in-certificate", "https://a.example/x", [uri("https://A.Example/x")], MATCH, "the host is compared in lower case", S74),
    ("path-case", "https://a.example/client?Q=1#F", page, NO, "case-sensitive beyond the host", S74),
    ("query-case", "https://a.example/Client?q=1#F", page, NO, "case-sensitive beyond the host", S74),
    ("fragment-case", "https://a.example/Client?Q=1#f", page, NO, "case-sensitive beyond the host", S74),
    ("without-query", "https://a.example/Client#F", page, NO, "the query counts", S74),
    ("without-fragment", "https://a.example/Client?Q=1", page, NO, "the fragment counts", S74),
    ("empty-query", "https://a.example/x?", [uri("https://a.example/x")], NO, "an empty query is a query", S74),
    ("empty-fragment", "https://a.example/x#", [uri("https://a.example/x")], NO, "an empty fragment is a fragment", S74),
    ("other-scheme", "http://a.example/x", [uri("https://a.example/x")], NO, "the scheme counts", S74),
    ("other-host", "https://b.example/x", [uri("https://a.example/x")], NO, "the host counts", S74),
    ("host-goes-on", "https://a.example", [uri("https://a.example.evil.example/")], NO, "the whole URI is compared", S74),
    ("path-goes-on", "https://a.example/x", [uri("https://a.example/x/y")], NO, "the whole URI is compared", S74),
    ("trailing-slash", "https://a.example/x/", [uri("https://a.example/x")], NO, "a slash at the end counts", S74),
    ("two-slashes", "https://a.example//x", [uri("https://a.example/x")], NO, "an empty segment counts", S74),
    ("empty-path", "https://a.example", [uri("https://a.example/")], MATCH, "scheme-based: an empty path is `/` for https", S74),
    ("empty-path-in-certificate", "https://a.example/", [uri("https://a.example")], MATCH, "scheme-based: an empty path is `/` for https", S74),
    ("empty-path-ldap", "ldap://a.example", [uri("ldap://a.example/")], MATCH, "scheme-based: ldap", S74),
    ("empty-path-before-query", "https://a.example?q", [uri("https://a.example/?q")], MATCH, "scheme-based: an empty path is `/` for https", S74),
    ("empty-path-of-another-scheme", "app://a.example", [uri("app://a.example/")], NO, "the scheme is not recognised, so nothing is known of its paths", S74),
    ("port", "https://a.example:8443/", [uri("https://a.example:8443/")], MATCH, "the port counts", S74),
    ("port-missing", "https://a.example/", [uri("https://a.example:8443/")], NO, "the port counts", S74),
    ("default-port-in-rule", "https://a.example:443/", [uri("https://a.example/")], RULE, "scheme-based: the default port is left out; " + PLAIN, S74),
    ("default-port-in-certificate", "https://a.example/", [uri("https://a.example:443/")], NO, PLAIN, S74),
    ("default-port-of-http", "http://a.example/", [uri("http://a.example:80/")], NO, PLAIN, S74),
    ("default-port-of-another-scheme", "https://a.example:80/", [uri("https://a.example:80/")], MATCH, "80 is not the default port of https", S74),
    ("port-empty", "https://a.example:/", [uri("https://a.example/")], RULE, "scheme-based: an empty port is left out; " + PLAIN, S74),
    ("port-leading-zero", "https://a.example:08443/", [uri("https://a.example:8443/")], RULE, "one number has one spelling", S74),
    ("port-not-a-number", "https://a.example:https/", [uri("https://a.example/")], RULE, "a port is digits", "RFC 3986 §3.2.3"),
    ("percent-same", "https://a.example/%C3%A9", [uri("https://a.example/%C3%A9")], MATCH, "the same octets", S74),
    ("percent-case-in-rule", "https://a.example/%c3%a9", [uri("https://a.example/%C3%A9")], RULE, "percent-encoding is in upper case; " + PLAIN, S74),
    ("percent-case-in-certificate", "https://a.example/%C3%A9", [uri("https://a.example/%c3%a9")], NO, PLAIN, S74),
    ("percent-of-a-letter-in-rule", "https://a.example/%41", [uri("https://a.example/A")], RULE, "an unreserved character is not encoded; " + PLAIN, S74),
    ("percent-of-a-letter-in-certificate", "https://a.example/A", [uri("https://a.example/%41")], NO, PLAIN, S74),
    ("percent-of-a-tilde-in-certificate", "https://a.example/~a", [uri("https://a.example/%7Ea")], NO, PLAIN, S74),
    ("percent-of-a-slash", "https://a.example/a/b", [uri("https://a.example/a%2Fb")], NO, "an encoded slash separates nothing", "RFC 3986 §2.2"),
    ("percent-of-a-slash-on-both-sides", "https://a.example/a%2Fb", [uri("https://a.example/a%2Fb")], MATCH, "the same octets", S74),
    ("percent-of-nul", "https://a.example/a", [uri("https://a.example/a%00")], NO, "the octet counts", S74),
    ("percent-half", "https://a.example/%4", [uri("https://a.example/")], RULE, "two digits follow a percent sign", "RFC 3986 §2.1"),
    ("percent-alone-in-certificate", "https://a.example/", [uri("https://a.example/%")], NO, "two digits follow a percent sign", "RFC 3986 §2.1"),
    ("percent-in-host", "https://a%2Eexample/", [uri("https://a.example/")], RULE, "a host is written without percent signs", S74),
    ("dot-segments-in-rule", "https://a.example/a/../b", [uri("https://a.example/b")], RULE, "dot segments are removed; " + PLAIN, S74),
    ("dot-segments-in-certificate", "https://a.example/b", [uri("https://a.example/a/../b")], NO, PLAIN, S74),
    ("dot-segment-at-the-end", "https://a.example/.", [uri("https://a.example/")], RULE, "dot segments are removed; " + PLAIN, S74),
    ("dot-segments-encoded", "https://a.example/b", [uri("https://a.example/a/%2E%2E/b")], NO, PLAIN, S74),
    ("dots-inside-a-segment", "https://a.example/a..b/.well-known", [uri("https://a.example/a..b/.well-known")], MATCH, "only whole segments are dot segments", "RFC 3986 §5.2.4"),
    ("dots-in-query", "https://a.example/?/../", [uri("https://a.example/?/../")], MATCH, "a query has no segments", "RFC 3986 §3.4"),
    ("userinfo-in-rule", "https://user@a.example/", [uri("https://a.example/")], RULE, "no user information: it deceives those who read", "RFC 3986 §7.6"),
    ("userinfo-in-certificate", "https://a.example/", [uri("https://a.example@evil.example/")], NO, "no user information: it deceives those who read", "RFC 3986 §7.6"),
    ("backslash", "https://a.example/", [uri("https://a.example\\@evil.example/")], NO, "not a character of URIs; some read it as a slash", "RFC 3986 §2"),
    ("space", "https://a.example/a b", [uri("https://a.example/a")], RULE, "not a character of URIs", "RFC 3986 §2"),
    ("brackets-in-path", "https://a.example/[x]", [uri("https://a.example/[x]")], RULE, "brackets stand around an address only", "RFC 3986 §3.3"),
    ("brackets-in-path-of-certificate", "https://a.example/x", [uri("https://a.example/[x]"), uri("https://a.example/x")], MATCH, "another name beside it changes nothing", "RFC 3986 §3.3"),
    ("brackets-in-query", "https://a.example/?a[0]=1", [uri("https://a.example/?a[0]=1")], RULE, "brackets stand around an address only", "RFC 3986 §3.4"),
    ("two-fragments", "https://a.example/#a#b", [uri("https://a.example/#a")], RULE, "a fragment has no number sign", "RFC 3986 §3.5"),
    ("iri-in-rule", "https://a.example/é", [uri("https://a.example/%C3%A9")], RULE, "the rule is written as it is stored: a URI", S74),
    ("iri-in-certificate", "https://a.example/%C3%A9", [uri("https://a.example/é")], NAME, "an IA5String is ASCII", S74),
    ("idn-host", "https://xn--bcher-kva.example/", [uri("https://XN--bcher-kva.example/")], MATCH, "a host is stored in ACE and compared in lower case", S74),
    ("idn-host-in-rule", "https://bücher.example/", [uri("https://xn--bcher-kva.example/")], RULE, "the rule is written as it is stored", S74),
    ("host-trailing-dot", "https://a.example/", [uri("https://a.example./")], NO, "a dot at the end is another spelling", S74),
    ("wildcard-host", "https://*.a.example/", [uri("https://client.a.example/")], NO, "a star is a star: no wildcards", S4216),
    ("wildcard-host-in-certificate", "https://client.a.example/", [uri("https://*.a.example/")], NO, "a star is a star: no wildcards", S4216),
    ("ipv4-host", "https://192.0.2.7/", [uri("https://192.0.2.7/")], MATCH, "the same URI", S74),
    ("ipv4-host-leading-zero", "https://192.0.2.7/", [uri("https://192.0.2.07/")], NO, "a host is compared as text", S74),
    ("ipv6-host", "https://[2001:db8::7]/", [uri("https://[2001:DB8::7]/")], MATCH, "a host is compared in lower case", S74),
    ("ipv6-host-in-full", "https://[2001:db8::7]/", [uri("https://[2001:db8:0:0:0:0:0:7]/")], NO, "a host is compared as text", S74),
    ("ipv6-host-zone", "https://[fe80::1%25eth0]/", [uri("https://[fe80::1]/")], RULE, "a zone means something on one host only", "RFC 6874 §2"),
    ("ipv6-host-open", "https://[2001:db8::7/", [uri("https://[2001:db8::7]/")], RULE, "the bracket is not closed", "RFC 3986 §3.2.2"),
    ("no-host", "https:///x", [uri("https://a.example/x")], RULE, "an https URI has a host", "RFC 3986 §3.2.2"),
    ("no-authority", "https:/x", [uri("https://a.example/x")], RULE, "an https URI has a host", "RFC 3986 §3"),
    ("no-scheme", "//a.example/x", [uri("https://a.example/x")], RULE, "a relative reference names nobody", S4216),
    ("relative-in-certificate", "https://a.example/x", [uri("/x")], NO, "a relative reference names nobody", S4216),
    ("scheme-begins-with-a-digit", "1a://a.example/", [uri("https://a.example/")], RULE, "a scheme begins with a letter", "RFC 3986 §3.1"),
    ("scheme-of-other-characters", "git+ssh.x-1://a.example/x", [uri("git+ssh.x-1://a.example/x")], MATCH, "a scheme may have digits and + - .", "RFC 3986 §3.1"),
    ("urn", "urn:example:Client:7", [uri("urn:example:Client:7")], MATCH, "the same URI", S74),
    ("urn-scheme-case", "URN:example:Client:7", [uri("urn:example:Client:7")], MATCH, "the scheme is compared in lower case", S74),
    ("urn-namespace-case", "urn:EXAMPLE:Client:7", [uri("urn:example:Client:7")], NO, "RFC 8141's own equivalence is not RFC 5280's: case counts beyond the scheme", S74),
    ("urn-specific-case", "urn:example:client:7", [uri("urn:example:Client:7")], NO, "case counts beyond the scheme", S74),
    ("urn-uuid-case", "urn:uuid:F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", [uri("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")], NO, "case counts beyond the scheme", S74),
    ("urn-nothing-after-scheme", "urn:", [uri("urn:example:x")], RULE, "a scheme alone names nobody", "RFC 3986 §3"),
    ("spiffe", "spiffe://a.example/client", [uri("spiffe://a.example/client")], MATCH, "the same URI", "SPIFFE-ID §2"),
    ("spiffe-trust-domain-case", "spiffe://A.EXAMPLE/client", [uri("spiffe://a.example/client")], MATCH, "the trust domain is a host", "SPIFFE-ID §2.1"),
    ("spiffe-path-case", "spiffe://a.example/Client", [uri("spiffe://a.example/client")], NO, "the path is case-sensitive", "SPIFFE-ID §2.2"),
    ("spiffe-path-goes-on", "spiffe://a.example/client", [uri("spiffe://a.example/client/x")], NO, "the whole URI is compared", "SPIFFE-ID §2"),
    ("spiffe-another-trust-domain", "spiffe://a.example/client", [uri("spiffe://b.example/client")], NO, "the trust domain counts", "SPIFFE-ID §2.1"),
    ("spiffe-without-slashes", "spiffe:a.example/client", [uri("spiffe://a.example/client")], RULE, "a SPIFFE ID has an authority", "SPIFFE-ID §2"),
    ("mailto", "mailto:ops@a.example", [email("ops@a.example")], NO, "another kind of name", "RFC 8705 §2.1.2"),
    ("nul-in-certificate", "https://a.example/x", [uri("https://a.example/x\0")], NAME, "a control character", S4216),
    ("second-of-two", "https://a.example/x", [uri("https://a.example/y"), uri("https://a.example/x")], MATCH, "any of the names of its kind", "RFC 8705 §2.1.2"),
    ("empty-in-certificate", "https://a.example/x", [uri("")], NO, "an empty name names nobody", S4216),
    ("too-long", "https://a.example/" + "x" * 4096, [uri("https://a.example/x")], RULE, "longer texts are no names here", S74),
]:
    write(id, rule, names, verdict, why, section)
save("uri")

# --- rfc822Name --------------------------------------------------------------------------------------------------------

write = san("email")
S75 = "RFC 5280 §7.5"
box = [email("Ops.Team@a.example")]
for id, rule, names, verdict, why, section in [
    ("same", "Ops.Team@a.example", box, MATCH, "the same address", S75),
    ("host-case", "Ops.Team@A.EXAMPLE", box, MATCH, "the host is compared without case", S75),
    ("host-case-in-certificate", "ops@a.example", [email("ops@A.Example")], MATCH, "the host is compared without case", S75),
    ("local-case", "ops.team@a.example", box, NO, "the local part is an exact match", S75),
    ("local-dots", "OpsTeam@a.example", box, NO, "some providers ignore dots; the local part is an exact match", S75),
    ("local-tag", "ops+x@a.example", [email("ops@a.example")], NO, "some providers ignore tags; the local part is an exact match", S75),
    ("local-special", "a!#$%&'*+-/=?^_`{|}~@a.example", [email("a!#$%&'*+-/=?^_`{|}~@a.example")], MATCH, "all that an atom may have", "RFC 5321 §4.1.2"),
    ("host-other", "Ops.Team@b.example", box, NO, "the host counts", S75),
    ("host-below", "ops@mail.a.example", [email("ops@a.example")], NO, "the whole host is compared", S75),
    ("host-alone", "a.example", [email("ops@a.example")], RULE, "a host is no address", S4216),
    ("host-alone-in-certificate", "ops@a.example", [email("a.example")], NO, "a host is a name constraint's form, no address", S4216),
    ("host-trailing-dot", "ops@a.example", [email("ops@a.example.")], NO, "not in the preferred name syntax", S4216),
    ("host-idn", "ops@xn--bcher-kva.example", [email("ops@XN--BCHER-KVA.example")], MATCH, "a host is stored in ACE and compared without case", S75),
    ("host-idn-in-rule", "ops@bücher.example", [email("ops@xn--bcher-kva.example")], RULE, "the rule is written as it is stored", S75),
    ("host-idn-in-certificate", "ops@xn--bcher-kva.example", [email("ops@bücher.example")], NAME, "an IA5String is ASCII", S75),
    ("host-address", "ops@[192.0.2.7]", [email("ops@[192.0.2.7]")], RULE, "address literals name no domain", S4216),
    ("host-empty", "ops@", box, RULE, "a host is missing", S4216),
    ("local-empty", "@a.example", box, RULE, "a local part is missing", S4216),
    ("local-of-64", "a" * 64 + "@a.example", [email("a" * 64 + "@a.example")], MATCH, "the longest local part", "RFC 5321 §4.5.3.1.1"),
    ("local-of-65", "a" * 65 + "@a.example", [email("a" * 65 + "@a.example")], RULE, "longer than any local part", "RFC 5321 §4.5.3.1.1"),
    ("local-dot-first", ".ops@a.example", box, RULE, "a dot stands between atoms", "RFC 5321 §4.1.2"),
    ("local-dots-together", "a..b@a.example", box, RULE, "a dot stands between atoms", "RFC 5321 §4.1.2"),
    ("local-quoted", '"ops"@a.example', [email('"ops"@a.example')], RULE, "a quoted local part has several spellings: not taken", "RFC 5321 §4.1.2"),
    ("local-quoted-in-certificate", "ops@a.example", [email('"ops"@a.example')], NO, "RFC 5321 has it mean the same mailbox; the local part is an exact match", S75),
    ("local-quoted-at-sign", "ops@a.example", [email('"ops@a.example"@evil.example')], NO, "the last @ is the one that counts, and quotes are not taken", S75),
    ("two-at-signs", "ops@a.example@evil.example", box, RULE, "one @ outside quotes", "RFC 5321 §4.1.2"),
    ("two-at-signs-in-certificate", "ops@a.example", [email("ops@a.example@evil.example")], NO, "one @ outside quotes", "RFC 5321 §4.1.2"),
    ("display-name", "Ops <ops@a.example>", [email("ops@a.example")], RULE, "an rfc822Name is a Mailbox without a phrase", S4216),
    ("display-name-in-certificate", "ops@a.example", [email("Ops <ops@a.example>")], NO, "an rfc822Name is a Mailbox without a phrase", S4216),
    ("comment", "ops@a.example", [email("ops@a.example (Ops)")], NO, "an rfc822Name has no comment", S4216),
    ("mailto", "mailto:ops@a.example", [email("ops@a.example")], RULE, "a URI is no address", S4216),
    ("space", "ops @a.example", box, RULE, "no space in an atom", "RFC 5321 §4.1.2"),
    ("local-beyond-ascii", "ö@a.example", box, RULE, "an IA5String is ASCII", S75),
    ("nul-in-certificate", "ops@a.example", [email("ops@a.example\0.evil.example")], NAME, "a reader of C strings would see `ops@a.example`", S4216),
    ("second-of-two", "ops@a.example", [email("dev@a.example"), email("ops@a.example")], MATCH, "any of the names of its kind", "RFC 8705 §2.1.2"),
    ("smtp-utf8-mailbox", "ops@a.example", [tlv(0xA0, oid("1.3.6.1.5.5.7.8.9") + tlv(0xA0, tlv(UTF8, "ops@a.example".encode())))], NO, "an otherName, whatever is in it", "RFC 9598 §3"),
]:
    write(id, rule, names, verdict, why, section)
case("email/subject-attribute-alone", "san_email", "ops@a.example", NO, "an attribute of the subject is no alternative name", "RFC 8705 §2.1.2", subject=plain(("emailAddress", "ops@a.example")))
save("email")

# --- One text under another kind ---------------------------------------------------------------------------------------

ONE = "exactly one attribute is registered, and only that one is looked at"
S8705 = "RFC 8705 §2.1.2"
for id, attribute, rule, subject, names, verdict, why, section in [
    ("dn-in-directory-name", "subject_dn", "CN=client", cn("other"), alt(tlv(0xA4, cn("client"))), NO, ONE, S8705),
    ("dn-in-dns-name", "subject_dn", "CN=client.a.example", cn("other"), alt(dns("client.a.example")), NO, ONE, S8705),
    ("dns-in-common-name", "san_dns", "client.a.example", cn("client.a.example"), alt(dns("other.a.example")), NO, ONE, S8705),
    ("dns-in-email-host", "san_dns", "a.example", None, alt(email("ops@a.example")), NO, ONE, S8705),
    ("dns-in-uri-host", "san_dns", "a.example", None, alt(uri("https://a.example/")), NO, ONE, S8705),
    ("uri-in-dns-name", "san_uri", "https://a.example/", None, alt(dns("a.example")), NO, ONE, S8705),
    ("uri-in-common-name", "san_uri", "spiffe://a.example/c", cn("spiffe://a.example/c"), alt(uri("spiffe://a.example/d")), NO, ONE, S8705),
    ("ip-in-common-name", "san_ip", "192.0.2.7", cn("192.0.2.7"), alt(dns("a.example")), NO, ONE, S8705),
    ("email-in-common-name", "san_email", "ops@a.example", cn("ops@a.example"), alt(dns("a.example")), NO, ONE, S8705),
    ("email-in-dns-name", "san_email", "ops@a.example", None, alt(dns("ops@a.example")), NO, ONE, S8705),
    ("user-principal-name", "san_email", "ops@a.example", None, alt(tlv(0xA0, oid("1.3.6.1.4.1.311.20.2.3") + tlv(0xA0, tlv(UTF8, b"ops@a.example")))), NO, "an otherName, whatever is in it", S8705),
    ("dn-beside-alternative-names", "subject_dn", "CN=client", None, alt(dns("a.example"), uri("https://a.example/")), MATCH, ONE, S8705),
    ("dn-of-empty-subject", "subject_dn", "CN=client", name(), alt(dns("client")), NO, "a certificate without a subject has no name to compare", S8705),
    ("dns-with-empty-subject", "san_dns", "a.example", name(), alt(dns("a.example")), MATCH, "the subject may be empty where an alternative name is there", S4216),
    ("registered-id", "san_uri", "urn:oid:1.2.3", None, alt(tlv(0x88, oid("1.2.3")[2:])), NO, ONE, S8705),
    ("other-kinds-beside-it", "san_dns", "a.example", None, alt(tlv(0xA4, cn("x")), tlv(0x88, oid("1.2.3")[2:]), dns("a.example")), MATCH, ONE, S8705),
    ("directory-name-malformed-beside-it", "san_dns", "a.example", None, alt(dns("a.example"), tlv(0xA4, tlv(0x30, tlv(0x31, tlv(0x30, tlv(0x02, b"\x55\x04\x03") + tlv(UTF8, b"x")))))), NAME, "of an extension with something malformed in it, another reader sees nothing at all", S4216),
    ("directory-name-implicit", "san_dns", "a.example", None, alt(dns("a.example"), tlv(0xA4, one("CN", "x"))), NAME, "a Name is a CHOICE, so its own tag is inside", S4216),
    ("registered-id-malformed-beside-it", "san_dns", "a.example", None, alt(dns("a.example"), tlv(0x88, b"\x80\x01")), NAME, "X.690 §8.19.2: arcs take the fewest octets", S4216),
    ("other-name-malformed-beside-it", "san_dns", "a.example", None, alt(dns("a.example"), tlv(0xA0, oid("1.2.3"))), NAME, "an otherName has a type and a value", S4216),
    ("alt-names-empty", "subject_dn", "CN=client", None, alt(), NAME, "the sequence has one name at least", S4216),
    ("alt-names-unknown-kind", "subject_dn", "CN=client", None, alt(tlv(0x89, b"")), NAME, "there is no such choice in GeneralName", S4216),
    ("alt-names-universal-tag", "san_dns", "a.example", None, alt(tlv(0x16, b"a.example")), NAME, "there is no such choice in GeneralName", S4216),
    ("alt-names-constructed", "san_dns", "a.example", None, alt(tlv(0xA2, tlv(0x16, b"a.example"))), NAME, "X.690 §10.2: DER has no constructed strings", S4216),
    ("alt-names-something-after", "san_dns", "a.example", None, alt(dns("a.example")) + b"\x05\x00", NAME, "one sequence and nothing after it", S4216),
    ("alt-names-not-a-sequence", "san_dns", "a.example", None, tlv(0x31, dns("a.example")), NAME, "GeneralNames is a SEQUENCE", S4216),
    ("alt-names-length-not-minimal", "san_dns", "a.example", None, tlv(0x30, b"\x82\x81\x09a.example"), NAME, "X.690 §10.1: lengths take the fewest octets", S4216),
    ("good-alt-name-bad-subject", "san_dns", "a.example", cn(b"\xff"), alt(dns("a.example")), NAME, "a certificate of which one name cannot be read has none", S4216),
    ("good-subject-bad-alt-name", "subject_dn", "CN=client", None, alt(ip(1)), NAME, "a certificate of which one name cannot be read has none", S4216),
    ("good-subject-wildcard-beside-it", "subject_dn", "CN=client", None, alt(dns("*.a.example")), MATCH, "a name that matches nothing takes nothing away", S8705),
]:
    case("kind/" + id, attribute, rule, verdict, why, section, subject=subject, alt_names=names)
save("kind")
print(len(seen), "cases in all")
assert all(id in seen for ids in EXPLAINED.values() for id in ids)
