"""Makes `ovis2-reader`: draws pages, trains on them, exports and measures the checkpoint."""
