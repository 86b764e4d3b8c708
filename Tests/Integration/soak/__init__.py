"""A long mixed load on both tiers, with all that befalls a server meanwhile; docs/soak.md says what it does and checks."""
