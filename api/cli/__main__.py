"""``python -m api.cli``: the command line without its console script."""

from api.cli.app import main

main()
