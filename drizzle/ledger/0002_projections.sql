CREATE TABLE vms (
  id TEXT PRIMARY KEY NOT NULL,
  pid INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'stopped', 'crashed')),
  image TEXT,
  config_json TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  owner_pid INTEGER NOT NULL,
  phase TEXT NOT NULL,
  version INTEGER NOT NULL,
  held_json TEXT NOT NULL,
  last_error TEXT,
  attempts INTEGER NOT NULL,
  retry_at TEXT,
  phase_since TEXT NOT NULL
) STRICT;

-- Keyed by the event's position, not by (vm_id, version): one index less to write with every event.
CREATE TABLE vm_lifecycle (
  position INTEGER PRIMARY KEY,
  vm_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  backend TEXT NOT NULL,
  phase TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  last_error TEXT,
  resources_json TEXT NOT NULL,
  cleanup_json TEXT NOT NULL
) STRICT;

CREATE TABLE subnet_allocations (
  vm_id TEXT PRIMARY KEY NOT NULL,
  octet INTEGER NOT NULL UNIQUE,
  gateway_ip TEXT NOT NULL,
  guest_ip TEXT NOT NULL,
  subnet TEXT NOT NULL UNIQUE,
  created_at TEXT NOT NULL
) STRICT;
