"""Measures Spool, its peers and the bare machine side by side: `python -m bench --help`."""
