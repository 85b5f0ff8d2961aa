"""How training rows are dealt to nodes: one file per partitioner (algorithms.md 9.5).

Every module defines ``PARTITIONERS``, a mapping of the name that a user writes in ``data.partition`` to a
frozen keyword-only dataclass with the settings of that partitioner. ``split`` gives disjoint, non-empty row
numbers and depends on nothing but the examples, n and the generator it is given.
"""
