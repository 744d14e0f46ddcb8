"""Reward models: trained on preferences, measured, and several made one."""
