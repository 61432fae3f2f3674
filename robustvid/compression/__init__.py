"""Smaller and faster models: pruned, quantised, distilled and exported, and what that does to their robustness."""
