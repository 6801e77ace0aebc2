-- Files that were deleted, and can still be brought back. A file's row is in `files` or here, and moves in one
-- transaction; so what reads `files` need not know of these. Each has every column of `files`.
CREATE TABLE hidden (
    id            TEXT NOT NULL PRIMARY KEY,
    key           TEXT NOT NULL,
    owner         TEXT NOT NULL,
    filename      TEXT NOT NULL,
    size          INTEGER NOT NULL CHECK (size >= 0),
    media_type    TEXT NOT NULL,
    declared_type TEXT,
    sha256        TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    metadata      TEXT NOT NULL,
    damage        TEXT CHECK (damage IN ('missing', 'size', 'digest')),
    body          BLOB,
    grant_id      TEXT,
    delete_hash   TEXT,
    until         INTEGER NOT NULL  -- then the sweep deletes it
) STRICT;

CREATE INDEX hidden_by_key ON hidden (key);
CREATE INDEX hidden_by_until ON hidden (until, id);

-- They lie on the disk, and so they count.
CREATE TRIGGER hidden_added AFTER INSERT ON hidden BEGIN
    INSERT INTO usage (owner, files, size) VALUES (new.owner, 1, new.size)
        ON CONFLICT (owner) DO UPDATE SET files = files + 1, size = size + excluded.size;
END;

CREATE TRIGGER hidden_removed AFTER DELETE ON hidden BEGIN
    UPDATE usage SET files = files - 1, size = size - old.size WHERE owner = old.owner;
    DELETE FROM usage WHERE owner = old.owner AND files = 0 AND size = 0;
END;

-- Their links, which lead nowhere meanwhile; in the columns of `links`.
CREATE TABLE hidden_links (
    id            TEXT NOT NULL PRIMARY KEY,
    file_id       TEXT NOT NULL REFERENCES hidden (id) ON DELETE CASCADE,
    secret_hash   TEXT NOT NULL UNIQUE,
    created_by    TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    max_downloads INTEGER,
    revoked_at    INTEGER,
    downloads     INTEGER NOT NULL,
    given         INTEGER NOT NULL
) STRICT;

CREATE INDEX hidden_links_by_file_id ON hidden_links (file_id);
