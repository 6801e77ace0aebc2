-- Files with equal bytes may share a blob, and what a check found wrong with it is known.
DROP INDEX files_by_key;
CREATE INDEX files_by_key ON files (key, id);

ALTER TABLE files ADD COLUMN damage TEXT CHECK (damage IN ('missing', 'size', 'digest'));
CREATE INDEX files_damaged ON files (key) WHERE damage IS NOT NULL;

-- Half of the digest, which is random at any length, makes an index of half the size.
CREATE INDEX files_by_digest ON files (substr(sha256, 1, 16), size);
