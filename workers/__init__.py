"""The Celery app and its tasks: a few lines each, the work is done in models/pipeline."""
