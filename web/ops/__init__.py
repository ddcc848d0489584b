"""The operators' page at `/ops`: is all well, and if not, why and what to do.

    GET /ops        the page: static files, no build step, nothing from other hosts   web/static/ops
    GET /api/ops    what it shows: judgement, figures, the last hour                  a token with `blotter:operate`

The graphs' samples lie in the buffer (models/pipeline/figures.py), so every web process shows the same, and they are there
when the page is opened for the first time, after the trouble began.
"""
