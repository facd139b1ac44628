-- Who asks for room reads the few VMs that were promised some and are not running yet, not every VM.
CREATE INDEX vms_promised ON vms (id)
WHERE disk_bytes > 0 AND phase IN ('creating', 'created', 'starting');
