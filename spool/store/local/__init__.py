"""Blobs in a directory of this machine."""

from spool.store.local.store import LocalStore, LocalWriter, open_local

__all__ = ["LocalStore", "LocalWriter", "open_local"]
