"""Rewards: models that learn them from preferences, programs that give them, and how several become one."""
