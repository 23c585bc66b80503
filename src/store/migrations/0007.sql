-- What a token is good for, as words separated by commas; when it was renewed or renamed.
ALTER TABLE tokens ADD COLUMN scopes TEXT NOT NULL DEFAULT 'global';
ALTER TABLE tokens ADD COLUMN updated_at INTEGER;
