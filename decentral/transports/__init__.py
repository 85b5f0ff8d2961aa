"""How messages and the timekeeper's words travel between processes, over ZeroMQ."""
