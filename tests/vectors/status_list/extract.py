"""Reads the JSON vectors of Appendix C out of the draft's text: extract.py DRAFT.txt > draft-ietf-oauth-status-list-20.json"""

import base64
import json
import re
import sys
import zlib

text = open(sys.argv[1], encoding="utf-8").read()
text = text[text.rindex("Appendix C.  Test vectors for Status List encoding") :]
text = "\n".join(line for line in text.split("\n") if not re.match(r"(Looker|Internet-Draft) ", line))
vectors = []
for match in re.finditer(r"C\.\d\.  (\d)-bit Status List(.*?)CBOR encoding", text, re.S):
    bits, body = int(match[1]), match[2]
    status = {index: int(value, 2) for index, value in re.findall(r"status\[(\d+)\]\s*=\s*0b([01]+)", body)}
    lst = re.sub(r"\s", "", re.search(r'"lst":\s*"([^"]*)"', body, re.S)[1])
    octets = zlib.decompress(base64.urlsafe_b64decode(lst + "==="))
    assert len(octets) == (1 << 20) * bits // 8
    for index, value in status.items():
        octet, place = divmod(int(index), 8 // bits)
        assert octets[octet] >> place * bits & (1 << bits) - 1 == value, index
    vectors.append({"name": f"C.{len(vectors) + 1}", "bits": bits, "status": status, "lst": lst})
assert [len(vector["status"]) for vector in vectors] == [11, 11, 15, 256]
source = "draft-ietf-oauth-status-list-20, Appendix C, JSON encodings"
json.dump({"source": source, "vectors": vectors}, sys.stdout, indent=1)
print()
