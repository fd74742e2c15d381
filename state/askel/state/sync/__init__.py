"""The service for programs without an event loop."""
