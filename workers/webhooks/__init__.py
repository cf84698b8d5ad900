"""Delivering webhooks: from the outbox to the receivers, with a schedule of tries."""
