"""The views: parse, call, answer. What is common to them lies in `web.saving` and `web.render`."""
