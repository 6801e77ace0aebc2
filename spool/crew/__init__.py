"""Several processes that serve one spool: workers answer requests, the office counts what is counted once.

A worker speaks to the office over a socket pair that both have from the start. Its end is a worker's death, however it
came about: the kernel closes the socket when the last of a process's threads is gone, so that nothing which the dead
worker began is still being written. Then the office lets go of all that the worker held.
"""
