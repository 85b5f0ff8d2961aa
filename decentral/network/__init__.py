"""The emulated network and the compute model: pure logic without sockets, clocks or threads."""
