-- Who did what, written in the transaction that did it. Numbers are never given out twice, so that a gap is seen.
CREATE TABLE audit (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    who        TEXT NOT NULL,
    via        TEXT NOT NULL CHECK (via IN ('http', 'command', 'server')),
    request_id TEXT,
    act        TEXT NOT NULL,
    subject    TEXT NOT NULL,
    detail     TEXT NOT NULL  -- JSON
) STRICT;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT raise(ABORT, 'an entry of the audit log is never changed');
END;
