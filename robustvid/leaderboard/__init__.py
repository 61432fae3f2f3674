"""Leaderboards: protocols that fix what is measured, entries computed from runs, and the page that shows them."""
