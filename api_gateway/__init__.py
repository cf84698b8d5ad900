"""The thin HTTP face: checks what callers send, makes it durable, and tells them how it goes.

Knows the contract and nothing of workers or models: it runs where no model library is installed.
"""
