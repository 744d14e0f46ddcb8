"""Alignment: reward-ranked fine-tuning (RAFT), proximal policy optimization (PPO), direct preference optimization."""
