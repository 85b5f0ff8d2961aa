"""One topology, one file: who sends fragment k to whom in round t, a pure function of (i, t, k, seed).

A file holds one frozen keyword-only dataclass, named again as ``TOPOLOGY``. The launcher injects ``n``,
``seeds`` and, where there is such a field, ``fragments``; the other fields are the keys that an
experiment's ``[topology]`` table may set. ``EXAMPLES`` lists arguments that the conformance suite tries.
"""
