-- Resumable uploads. What one counts for is worked out here, once, so that no trigger can see it another way.
CREATE TABLE uploads (
    id              TEXT NOT NULL PRIMARY KEY,
    key             TEXT NOT NULL,
    owner           TEXT NOT NULL,
    dialect         TEXT NOT NULL,
    filename        TEXT NOT NULL,  -- from here on the intent
    length          INTEGER CHECK (length >= 0),
    declared_type   TEXT,
    digests         TEXT NOT NULL,  -- JSON: algorithm to hex
    metadata        TEXT NOT NULL,  -- JSON
    file_expires_at INTEGER,        -- to here
    notes           TEXT NOT NULL,  -- JSON
    partial         INTEGER NOT NULL CHECK (partial IN (0, 1)),
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    offset          INTEGER NOT NULL CHECK (offset >= 0),
    staged_state    TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('open', 'complete', 'finished')),
    epoch           INTEGER NOT NULL,
    media_type      TEXT,
    file_id         TEXT,
    kept            INTEGER NOT NULL AS (iif(state = 'finished', 0, coalesce(length, offset))),
    promised        INTEGER NOT NULL AS (iif(state = 'open', max(coalesce(length, offset) - offset, 0), 0)),
    CHECK ((state = 'finished') = (file_id IS NOT NULL))  -- no advance takes back that it is a file
) STRICT;

-- Once it is finished, its blob is the file's.
CREATE UNIQUE INDEX uploads_by_key ON uploads (key) WHERE state <> 'finished';
CREATE INDEX uploads_by_expires_at ON uploads (expires_at);
CREATE INDEX uploads_unfinished ON uploads (created_at) WHERE state = 'complete' AND partial = 0;

CREATE TABLE promised (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL
) STRICT;

INSERT INTO promised VALUES (1, 0);

-- An owner without a file may now keep bytes all the same.
DROP TRIGGER files_removed;

CREATE TRIGGER files_removed AFTER DELETE ON files BEGIN
    UPDATE usage SET files = files - 1, size = size - old.size WHERE owner = old.owner;
    DELETE FROM usage WHERE owner = old.owner AND files = 0 AND size = 0;
END;

CREATE TRIGGER uploads_added AFTER INSERT ON uploads BEGIN
    INSERT INTO usage (owner, files, size) VALUES (new.owner, 0, new.kept)
        ON CONFLICT (owner) DO UPDATE SET size = size + excluded.size;
    UPDATE promised SET size = size + new.promised;
END;

-- A row of usage is gone while it is all nought, so this may have to make it.
CREATE TRIGGER uploads_changed AFTER UPDATE ON uploads
WHEN new.kept <> old.kept OR new.promised <> old.promised BEGIN
    INSERT INTO usage (owner, files, size) VALUES (new.owner, 0, new.kept - old.kept)
        ON CONFLICT (owner) DO UPDATE SET size = size + excluded.size;
    UPDATE promised SET size = size + new.promised - old.promised;
END;

CREATE TRIGGER uploads_removed AFTER DELETE ON uploads BEGIN
    UPDATE usage SET size = size - old.kept WHERE owner = old.owner;
    DELETE FROM usage WHERE owner = old.owner AND files = 0 AND size = 0;
    UPDATE promised SET size = size - old.promised;
END;
