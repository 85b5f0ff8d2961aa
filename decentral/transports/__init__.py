"""How messages travel: in memory between threads, or over ZeroMQ between processes."""
