"""Where the nodes of a job run: in this process (inline) or as processes of an agent (local)."""
