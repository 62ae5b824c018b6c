"""Registries for tests: a real one on loopback, and hosts in front of it that do what hosts should not."""
