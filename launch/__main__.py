"""``python -m launch`` is ``decentral``."""

from launch.cli import main

main()
