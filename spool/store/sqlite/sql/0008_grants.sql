-- Guests upload by a grant. Of its secret, and of a link's, there is only the hash.
CREATE TABLE grants (
    id            TEXT NOT NULL PRIMARY KEY,
    secret_hash   TEXT NOT NULL UNIQUE,
    owner         TEXT NOT NULL,
    note          TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    max_files     INTEGER NOT NULL CHECK (max_files > 0),
    max_size      INTEGER NOT NULL CHECK (max_size >= 0),       -- 0 is without limit
    max_file_size INTEGER NOT NULL CHECK (max_file_size >= 0),  -- likewise
    types         TEXT NOT NULL,  -- JSON
    passphrase    TEXT,
    revoked_at    INTEGER,
    files         INTEGER NOT NULL,  -- that came by it, ever
    size          INTEGER NOT NULL,
    -- Whatever else fails, no commit passes these.
    CHECK (files <= max_files AND (max_size = 0 OR size <= max_size))
) STRICT;

CREATE INDEX grants_by_owner ON grants (owner, created_at, id);
CREATE INDEX grants_by_expires_at ON grants (expires_at);

-- They say by which grant a guest brought it; the grant itself may be gone.
ALTER TABLE files ADD COLUMN grant_id TEXT;
ALTER TABLE uploads ADD COLUMN grant_id TEXT;
CREATE INDEX files_by_grant ON files (grant_id, created_at, id) WHERE grant_id IS NOT NULL;
CREATE INDEX uploads_by_grant ON uploads (grant_id) WHERE grant_id IS NOT NULL AND state <> 'finished';

-- Of the secret by which whoever brought it may delete it.
ALTER TABLE files ADD COLUMN delete_hash TEXT;

-- By a link whoever has it gets one file.
CREATE TABLE links (
    id            TEXT NOT NULL PRIMARY KEY,
    file_id       TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    secret_hash   TEXT NOT NULL UNIQUE,
    created_by    TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    max_downloads INTEGER CHECK (max_downloads > 0),  -- NULL is without limit
    revoked_at    INTEGER,
    downloads     INTEGER NOT NULL,
    given         INTEGER NOT NULL,
    CHECK (max_downloads IS NULL OR downloads <= max_downloads)
) STRICT;

CREATE INDEX links_by_file_id ON links (file_id, created_at);
CREATE INDEX links_by_expires_at ON links (expires_at);
