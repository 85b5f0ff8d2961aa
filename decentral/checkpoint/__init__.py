"""What a run needs to go on after it was killed: states, their files, how all save at one moment.

Emulated time only. A node is saved as its state at the top of its last local round and what it has heard
since (``memory``); the timekeeper and the observer are saved as they are.
"""
