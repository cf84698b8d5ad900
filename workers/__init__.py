"""Celery roles: ``model`` (one GPU, one model) and ``io`` (reaping, topping up, purging)."""
