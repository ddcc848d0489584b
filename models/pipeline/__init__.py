"""The rooms that hold both buffer and store: save (with adoption), read, flush, settle, sweep, evict, purge."""
