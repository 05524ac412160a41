"""``python -m dualwrite.cli``."""

from dualwrite.cli import main

main()
