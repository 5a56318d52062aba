"""The requests that are sent, as gRPC frames.

Protocol Buffers by hand, for the few field types that occur: refuses to be a library of them.
"""

import struct

ORGANIZATION, USER, ROLE = "acme", "ana", "analyst"
ACTION, DATASET, PURPOSE, REGION = "read", "sales/eu/orders", "AcademicResearch", "FR"

#: What the license says; the same as in benches/gate/scene.rs.
TERMS = {
    "tier": "gold",
    "datasets": ["sales/eu"],
    "actions": ["read", "query", "aggregate"],
    "purposes": ["ResearchAndDevelopment"],
    "roles": ["analyst", "steward"],
    "regions": ["EU"],
    "prohibitions": ["combine-external", "reidentify"],
    "regulations": ["gdpr"],
}

#: The same question to Cerbos, which has no hierarchies: what is broader is sent along.
CERBOS_PRINCIPAL = {"organization": ORGANIZATION, "license": {**TERMS, "assignee": ORGANIZATION}}
CERBOS_RESOURCE = {
    "path": DATASET,
    "action": ACTION,
    "purposes": [PURPOSE, "ResearchAndDevelopment", "Purpose"],
    "regions": [REGION, "EU", "EEA"],
    "combined_with": [],
    "combined_with_external": False,
}


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def part(field, content):
    """A string or a message."""
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def value(thing):
    """A `google.protobuf.Value`."""
    if isinstance(thing, bool):
        return varint(4 << 3) + varint(int(thing))
    if isinstance(thing, (int, float)):
        return varint(2 << 3 | 1) + struct.pack("<d", thing)
    if isinstance(thing, str):
        return part(3, thing)
    if isinstance(thing, list):
        return part(6, b"".join(part(1, value(item)) for item in thing))
    return part(5, b"".join(part(1, entry) for entry in entries(thing)))


def entries(things):
    """The entries of a map from strings to values."""
    return [part(1, key) + part(2, value(thing)) for key, thing in things.items()]


def check(token):
    """A `tollgate.v1.CheckRequest`."""
    subject = part(1, USER) + part(2, ORGANIZATION) + part(3, ROLE)
    return b"".join(
        [
            part(2, token),
            part(4, subject),
            part(5, ACTION),
            part(6, part(1, DATASET)),
            part(7, PURPOSE),
            part(8, REGION),
        ]
    )


def check_batch(token, size):
    """A `tollgate.v1.CheckBatchRequest`."""
    return part(1, check(token)) * size


def cerbos():
    """A `cerbos.request.v1.CheckResourcesRequest`."""
    principal = part(1, USER) + part(3, ROLE) + b"".join(part(4, entry) for entry in entries(CERBOS_PRINCIPAL))
    resource = part(1, "dataset") + part(3, DATASET) + b"".join(part(4, entry) for entry in entries(CERBOS_RESOURCE))
    return part(1, "bench") + part(3, principal) + part(4, part(1, ACTION) + part(2, resource))


def frame(message):
    """A message as gRPC sends it: not compressed, with its length before it."""
    return struct.pack(">BI", 0, len(message)) + message
