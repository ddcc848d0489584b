"""Blotter's data layer: core (pure), buffer (Redis), postgres (the store) and the pipeline that joins the two.

Arrows: core <- buffer, postgres <- pipeline <- web, workers. Nothing in here imports web or workers.
"""
