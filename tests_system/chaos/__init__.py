"""Chaos test: recorders and live pipelines under random faults and kills, compared with the exchange's own journal."""
