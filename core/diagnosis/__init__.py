"""Findings and the verdict: one rule, one small function, one stable code."""
