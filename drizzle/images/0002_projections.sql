CREATE TABLE images (
  scope TEXT NOT NULL CHECK (scope IN ('local', 'registry')),
  tag TEXT NOT NULL,
  digest TEXT NOT NULL,
  size INTEGER NOT NULL,
  source TEXT,
  rootfs_path TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  PRIMARY KEY (scope, tag)
) STRICT;

CREATE INDEX images_of_digest ON images (digest);

-- One row for every file that stands, or is being removed. A path belongs to one of them: that is what keeps
-- a file that gc has begun to remove from being registered.
CREATE TABLE image_files (
  digest TEXT PRIMARY KEY NOT NULL,
  phase TEXT NOT NULL CHECK (phase IN ('present', 'removing')),
  path TEXT NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  source TEXT,
  tags_json TEXT NOT NULL,
  pins_json TEXT NOT NULL,
  version INTEGER NOT NULL,
  registered_at TEXT,
  updated_at TEXT NOT NULL
) STRICT;
