-- Of slugs that a client has brought: the digest of what it sent, and what it says of the commit.
ALTER TABLE slugs ADD COLUMN checksum TEXT;
ALTER TABLE slugs ADD COLUMN commit_description TEXT;

-- Made by address and password: a session.
ALTER TABLE tokens ADD COLUMN login INTEGER NOT NULL DEFAULT 0 CHECK (login IN (0, 1));

-- `secret` is sealed with the instance's key, bound to the client's id.
CREATE TABLE oauth_clients (
    id           TEXT PRIMARY KEY,
    account_id   TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    secret       BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX oauth_clients_of_account ON oauth_clients (account_id);
