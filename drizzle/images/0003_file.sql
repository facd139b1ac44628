-- Which file this is: a copy of it says the same things, and its paths are the original's.
ALTER TABLE ledger ADD COLUMN file_inode TEXT;
ALTER TABLE ledger ADD COLUMN file_birth_ns TEXT;
ALTER TABLE ledger ADD COLUMN file_device TEXT;
ALTER TABLE ledger ADD COLUMN file_path TEXT;
