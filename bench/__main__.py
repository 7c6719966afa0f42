"""`make bench`, or `python -m bench [word …] [--long]`."""

from bench.run import main

main()
