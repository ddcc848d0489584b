"""The demo chat at `/`: a page, the few addresses it needs beside the API, and an assistant that answers.

Only `blotter up` has it. The page gets a token without anybody logging in, so all of this is served to this machine
alone: in the embedded mode, bound to loopback, asked from loopback under a loopback name (see `web.demo.guard`).
Everywhere else `/` is a plain page that says what this is, and the other addresses do not exist.

    GET  /                    the page                              web/demo/pages, web/static/demo
    GET  /demo/frame          what an artifact is shown in: scripts and network are off
    POST /demo/session        a token for this browser's own demo owner, for half an hour
    POST /demo/reply          asks the assistant to write a message; asked twice, it is written once
    POST /demo/kill-worker    kills one process of the worker, to watch nothing happen

The assistant is a process of its own (`web.demo.assistant`). It is asked through a folder (`web.demo.spool`), so that a
question outlives either of the two.
"""
