"""What is known about work: profiles, context, events, results, agents and runs."""
