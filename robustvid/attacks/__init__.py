"""Attacks: pure functions ``(model, clips, labels, budget, seeds) -> clips``, one file each."""
