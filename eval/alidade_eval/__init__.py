"""Measures language models: suites, intervals, comparisons and a report of them."""
