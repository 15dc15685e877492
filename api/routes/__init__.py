"""The routes: parse, one call of a service, render."""
