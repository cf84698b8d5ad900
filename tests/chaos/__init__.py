"""Real processes under random faults, and the audit of what is left: ``python -m tests.chaos``."""
