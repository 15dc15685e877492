"""Built-in local analysts: agents that need no model. Each entry module has ``run(agent) -> result``."""
