"""The OpenAI wire format over HTTP: what its clients send and read."""
