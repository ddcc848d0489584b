"""The store: PostgreSQL's side of Blotter. One writer (`upserts`), one fence (`version`), driver errors translated here."""
