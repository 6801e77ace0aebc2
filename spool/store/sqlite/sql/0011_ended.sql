-- When a grant or a link ended, be it that it expired or that it was revoked: what ended long ago is forgotten in lots.
DROP INDEX grants_by_expires_at;
DROP INDEX links_by_expires_at;
CREATE INDEX grants_by_end ON grants (min(expires_at, ifnull(revoked_at, expires_at)));
CREATE INDEX links_by_end ON links (min(expires_at, ifnull(revoked_at, expires_at)));
