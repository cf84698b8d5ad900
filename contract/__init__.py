"""What the gateway and the workers agree on: records, queues, blobs, errors, names.

Imports no other room, no model library and no web framework.
"""
