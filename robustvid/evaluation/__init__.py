"""Evaluation: cards, the sweep over budgets, its journal, and the results read from it."""
