"""``python -m hope_serve.cli``."""

from hope_serve.cli import main

main()
