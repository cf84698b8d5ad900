"""Hostile files, made by the tests."""
