"""Rewards: what a trained model or a program gives an answer."""
