"""Sans-IO: bytes or headers in, events or answers out."""
