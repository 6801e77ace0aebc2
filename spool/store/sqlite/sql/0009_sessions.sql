-- Browsers that are signed in. A session is only as good as its token, and ends with it.
CREATE TABLE sessions (
    secret_hash TEXT NOT NULL PRIMARY KEY,
    token_id    TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_token ON sessions (token_id);
CREATE INDEX sessions_by_expires_at ON sessions (expires_at);
