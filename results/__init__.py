"""Analysis of finished, running and broken runs, from their files alone: needs neither torch nor zmq.

``read`` loads a run folder, ``metrics`` measures it (algorithms.md 1.6), ``compare`` sets its arms side by
side, ``plots`` draws them, ``report`` writes everything into the run folder and ``export`` writes the
layout that DecentralizePy's plot scripts read.
"""
