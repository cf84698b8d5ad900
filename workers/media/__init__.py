"""Untrusted bytes are fetched and decoded here, in processes that hold no credentials and may be killed (law 5)."""
