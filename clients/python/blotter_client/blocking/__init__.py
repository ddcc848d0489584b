"""The blocking client, generated from `blotter_client.aio`; only `runtime` is written by hand."""
