-- The index of each sort holds what listings filter by: a page that skips many rows need not fetch them.
DROP INDEX files_by_created_at;
DROP INDEX files_by_size;
DROP INDEX files_by_filename;
CREATE INDEX files_by_created_at ON files (created_at, id, media_type, filename);
CREATE INDEX files_by_size ON files (size, id, created_at, media_type, filename);
CREATE INDEX files_by_filename ON files (filename, id, created_at, media_type);
