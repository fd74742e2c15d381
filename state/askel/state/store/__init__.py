"""The way to Redis: addresses, the connection, the scripts, what the server must be."""
