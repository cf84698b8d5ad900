"""Programs around the project that no service needs."""
