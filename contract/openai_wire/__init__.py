"""OpenAI's chat completions as tasks: read, translated, answered. Gateway and io workers share them (batches)."""
