"""The demo's assistant: a process that writes replies on the server, so that a closed tab costs nothing.

    python -m web.demo.assistant            a line of the Procfile; idle outside the embedded mode

    spool (files)  ──▶ process: one task a job ──▶ turn: reads the chat, lets a voice speak, saves what it says
                                                    │                            through the Python client
                        voices: simulator, openai ◀─┘

- `voice`       what a voice says, as values: text, tool calls, artifacts, silence
- `simulator`   a voice with original texts, the same for the same question and message id
- `openai`      a voice that asks any OpenAI-compatible server (OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL)
- `turn`        one reply, from the question to "all of it is in Postgres"
- `process`     jobs in, tasks out, and an orderly end

Laws:
1. A job is forgotten only when its message is finished and all of it is stored. Until then whoever starts next goes on.
2. Everything is said again after a restart, or when the buffer was lost; what is there already is skipped by its
   offset. So nothing is doubled. (A server that cannot repeat itself is asked anew only if nothing was kept yet.)
3. Stop is a save like any other: the next word is refused, and the turn ends.
"""
