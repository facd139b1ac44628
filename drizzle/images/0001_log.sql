CREATE TABLE events (
  position INTEGER PRIMARY KEY,
  event_id TEXT NOT NULL UNIQUE CHECK (length(event_id) = 26),
  stream_id TEXT NOT NULL,
  version INTEGER NOT NULL CHECK (version >= 1),
  type TEXT NOT NULL,
  schema_version INTEGER NOT NULL CHECK (schema_version >= 1),
  data TEXT NOT NULL CHECK (json_valid(data)),
  metadata TEXT NOT NULL CHECK (json_valid(metadata)),
  occurred_at TEXT NOT NULL,
  recorded_at TEXT NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  UNIQUE (stream_id, version)
) STRICT;

CREATE TRIGGER events_never_change BEFORE UPDATE ON events BEGIN
  SELECT raise(ABORT, 'events are immutable: UPDATE is refused');
END;

CREATE TRIGGER events_never_leave BEFORE DELETE ON events BEGIN
  SELECT raise(ABORT, 'events are immutable: DELETE is refused');
END;

-- INSERT OR REPLACE deletes without firing the trigger above, so a taken slot is refused before it can.
CREATE TRIGGER events_take_the_next_slot BEFORE INSERT ON events BEGIN
  SELECT raise(ABORT, 'events are immutable: the position is not the next one')
  WHERE new.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM events);
  SELECT raise(ABORT, 'events are immutable: the version is not the next one of its stream')
  WHERE new.version IS NOT (SELECT coalesce(max(version), 0) + 1 FROM events WHERE stream_id = new.stream_id);
  SELECT raise(ABORT, 'events are immutable: the event id is taken')
  WHERE EXISTS (SELECT 1 FROM events WHERE event_id = new.event_id);
END;

CREATE TABLE ledger (
  ledger_id TEXT NOT NULL,
  machine_id TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
