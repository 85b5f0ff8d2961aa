"""Composes experiments from their parts and runs them: the only place that knows all of them."""
