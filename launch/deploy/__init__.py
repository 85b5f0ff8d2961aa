"""Brings code, environment and data sets to hosts that lack them.

Imports nothing: agents use modules of this package, and have only the packages that were brought to them.
"""
