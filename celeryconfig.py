"""Celery's settings, each with its reason. What they rest on: the due index in the buffer is the truth, a message is a
hint ("partition N has work"), and beat's sweep, or a worker itself, finds whatever a lost message meant.
"""

from datetime import timedelta

from models.pipeline.brokers import celery_options
from models.settings import current

_settings = current()

# ---------------------------------------------------------------- the broker
# A frozen broker costs a worker this long, not for ever (the default). The doorbell has 0.5 s of its own.
_broker = celery_options(_settings, patience_s=5.0, connect_s=2.0)
broker_url = _broker["broker_url"]
broker_transport_options = _broker["broker_transport_options"]
# A worker started before its broker waits for it, and one that lost it comes back, for ever.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# Getting a connection never waits for ever (Celery's default).
broker_pool_acquire_timeout = 0.5
# One try: who publishes is a save or a flush, and neither waits for a broker. (`retry=False` would be slower: 6 s.)
task_publish_retry = True
task_publish_retry_policy = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}

# ---------------------------------------------------------------- messages
# Nobody reads results.
task_ignore_result = True
# Numbers and names only; nothing that executes when it is read.
task_serializer = "json"
accept_content = ["json"]
# Acknowledged when taken, not when done: a lost doorbell costs the second until the sweep, while a message that came
# back after each death of its worker would loop for ever on a row that kills it. What was due still is.
task_acks_late = False
task_create_missing_queues = True
task_default_queue_type = _broker["task_default_queue_type"]
task_create_missing_queue_type = _broker["task_create_missing_queue_type"]
task_default_queue = "blotter"
task_routes = {"blotter.*": {"queue": "blotter"}}
timezone = "UTC"
enable_utc = True

# ---------------------------------------------------------------- workers
imports = ("workers.tasks",)
# One message in hand for each process: others take what this one cannot begin.
worker_prefetch_multiplier = 1
# The doorbell's countdown is 0.2 s: look that often.
worker_timer_precision = 0.1
# No time limits on tasks: a signal inside COMMIT makes its outcome unknown. Flushes end themselves after 5 s; Postgres'
# own timeouts (statement 5 s, lock 2 s, silence 7 s) end what hangs.
task_time_limit = None
task_soft_time_limit = None
# SIGTERM waits for running tasks; SIGQUIT, or a second SIGTERM, gives them this long: a flush and its last batch.
worker_soft_shutdown_timeout = 10.0
# A broker that went away does not take running flushes with it: they need it for nothing.
worker_cancel_long_running_tasks_on_connection_loss = False
# Adopting conversations of 32 MiB leaves a process large (kB); a fresh one takes over between two tasks.
worker_max_memory_per_child = 512 * 1024
# Nobody listens to events, and remote control could stop workers through the broker.
worker_send_task_events = False
worker_enable_remote_control = False
# Log lines name partitions and counts. Arguments are never printed, and nothing else holds chat text.
worker_redirect_stdouts = False
worker_hijack_root_logger = False
task_track_started = False

# ---------------------------------------------------------------- beat
# A tick that nobody took before the next two came is worth nothing: expired ticks never pile up behind a backlog. (Where
# the clocks of beat and worker differ by more than that, all of them expire, and workers sweep on their own.)
# Daily chores (purge, strays) are part of the sweep, a page at a time: no task holds a process that flushes wait for.
beat_schedule = {
    "sweep": {
        "task": "blotter.sweep",
        "schedule": timedelta(seconds=_settings.sweep_seconds),
        "options": {"expires": max(2 * _settings.sweep_seconds, 2.0)},
    },
}
# Beat wakes for each tick, not at its default of every 5 s at most.
beat_max_loop_interval = max(0.05, min(1.0, _settings.sweep_seconds))
