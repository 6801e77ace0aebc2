"""Clients that mean harm, or are slow, or know no better."""
