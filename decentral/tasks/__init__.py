"""Tasks, one file a family, each found by name in the ``TASKS`` of its module."""
