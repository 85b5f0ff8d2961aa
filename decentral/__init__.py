"""decentral: a multi-process emulator for decentralized learning; what an algorithm is written with."""

__version__ = "0.1.0"
