-- Which file this is: a copy of it says the same things, and holds none of what they are about.
ALTER TABLE ledger ADD COLUMN file_inode TEXT;
ALTER TABLE ledger ADD COLUMN file_birth_ns TEXT;
ALTER TABLE ledger ADD COLUMN file_device TEXT;
ALTER TABLE ledger ADD COLUMN file_path TEXT;
