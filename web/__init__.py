"""The HTTP side: authenticate, parse, call the pipeline, answer.

Imports `models` only; tasks are sent by name, never imported from `workers`.
"""
