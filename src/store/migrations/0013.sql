-- Of slugs that a client has brought: the digest of what it sent, and what it says of the commit.
ALTER TABLE slugs ADD COLUMN checksum TEXT;
ALTER TABLE slugs ADD COLUMN commit_description TEXT;
