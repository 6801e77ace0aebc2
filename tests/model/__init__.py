"""A model of a spool, and what drives a real one beside it."""
