"""Cases of pods.py: how clients reach into containers."""
CASES = []
