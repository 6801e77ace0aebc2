-- What operators allow one principal in the place of what the configuration says; NULL is as configured, 0 without limit.
CREATE TABLE overrides (
    owner               TEXT NOT NULL PRIMARY KEY,
    quota               INTEGER CHECK (quota >= 0),
    quota_files         INTEGER CHECK (quota_files >= 0),
    requests_per_minute INTEGER CHECK (requests_per_minute >= 0),
    uploads             INTEGER CHECK (uploads >= 0)
) STRICT;

-- How many requests a principal has sent in its minute.
CREATE TABLE windows (
    owner    TEXT NOT NULL PRIMARY KEY,
    since    INTEGER NOT NULL,
    requests INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Resumable uploads that are not finished, each of which counts as a file that is to be.
CREATE TABLE unfinished (
    owner   TEXT NOT NULL PRIMARY KEY,
    uploads INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO unfinished SELECT owner, count(*) FROM uploads WHERE state <> 'finished' GROUP BY owner;

CREATE TRIGGER unfinished_added AFTER INSERT ON uploads WHEN new.state <> 'finished' BEGIN
    INSERT INTO unfinished (owner, uploads) VALUES (new.owner, 1) ON CONFLICT (owner) DO UPDATE SET uploads = uploads + 1;
END;

-- A finished upload stays finished.
CREATE TRIGGER unfinished_changed AFTER UPDATE ON uploads WHEN new.state = 'finished' AND old.state <> 'finished' BEGIN
    UPDATE unfinished SET uploads = uploads - 1 WHERE owner = old.owner;
    DELETE FROM unfinished WHERE owner = old.owner AND uploads = 0;
END;

CREATE TRIGGER unfinished_removed AFTER DELETE ON uploads WHEN old.state <> 'finished' BEGIN
    UPDATE unfinished SET uploads = uploads - 1 WHERE owner = old.owner;
    DELETE FROM unfinished WHERE owner = old.owner AND uploads = 0;
END;
