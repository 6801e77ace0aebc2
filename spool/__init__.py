"""Spool: the landing zone for uploaded media."""

__version__ = "0.1.0"
