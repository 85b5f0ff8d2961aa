"""The commands of ``decentral``, a file for those that belong together; launch/cli.py joins them."""
