"""Teams at work on an issue: who works when (pure), and the runner that carries it out."""
