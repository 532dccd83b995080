"""``python -m tardigrad`` is the command line."""

from tardigrad.cli import main

main()
