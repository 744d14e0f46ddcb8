"""`alidade doctor`: what a cluster has of what Alidade needs, and what to do about the rest."""
