"""`python -m hotlora.command` is `hotlora`."""

from hotlora.command import main

main()
