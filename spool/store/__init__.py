"""Back-ends: where bytes and records are kept."""
