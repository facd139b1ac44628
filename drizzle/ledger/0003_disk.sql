-- What a VM was promised on disk; rows that stand already get it from their history, as a rebuild would.
ALTER TABLE vms ADD COLUMN disk_bytes INTEGER;

UPDATE vms SET disk_bytes = (
  SELECT CASE json_type(data, '$.diskBytes') WHEN 'integer' THEN json_extract(data, '$.diskBytes') END
  FROM events
  WHERE stream_id = 'vm/' || vms.id AND type = 'vm.creating'
  ORDER BY version DESC
  LIMIT 1
);
