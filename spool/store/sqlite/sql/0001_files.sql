-- Times are microseconds since the epoch. Text compares by code point, which is what BINARY does to UTF-8.

-- A rowid table: ids are random, so a WITHOUT ROWID table would put every wide row at a random place.
CREATE TABLE files (
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
    metadata      TEXT NOT NULL  -- JSON
) STRICT;

CREATE UNIQUE INDEX files_by_key ON files (key);
CREATE INDEX files_by_created_at ON files (created_at, id);
CREATE INDEX files_by_size ON files (size, id);
CREATE INDEX files_by_filename ON files (filename, id);
CREATE INDEX files_by_expires_at ON files (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE usage (
    owner TEXT NOT NULL PRIMARY KEY,
    files INTEGER NOT NULL,
    size  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER files_added AFTER INSERT ON files BEGIN
    INSERT INTO usage (owner, files, size) VALUES (new.owner, 1, new.size)
        ON CONFLICT (owner) DO UPDATE SET files = files + 1, size = size + excluded.size;
END;

CREATE TRIGGER files_removed AFTER DELETE ON files BEGIN
    UPDATE usage SET files = files - 1, size = size - old.size WHERE owner = old.owner;
    DELETE FROM usage WHERE owner = old.owner AND files = 0;
END;

CREATE TABLE answers (
    owner           TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    files           TEXT NOT NULL,  -- JSON: the records as they were, whatever becomes of them
    PRIMARY KEY (owner, idempotency_key)
) STRICT;

CREATE INDEX answers_by_created_at ON answers (created_at);

CREATE TABLE tokens (
    id          TEXT NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    scopes      TEXT NOT NULL,  -- JSON
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT;

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
