"""What survives: protocols and their SQLite implementation."""
