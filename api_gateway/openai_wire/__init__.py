"""The OpenAI wire format: its requests as tasks, and what becomes of those in its words."""
