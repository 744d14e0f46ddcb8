"""Metrics: from answers, ranks and likelihoods to what each sample adds to a number."""
