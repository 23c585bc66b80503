-- An Argon2 hash in PHC form; null: cannot log in by password. A removed account stays for the releases that it made.
ALTER TABLE accounts ADD COLUMN password TEXT;
ALTER TABLE accounts ADD COLUMN name TEXT;
ALTER TABLE accounts ADD COLUMN removed_at INTEGER;

-- No administrator joins a locked app by himself.
ALTER TABLE apps ADD COLUMN locked INTEGER NOT NULL DEFAULT 0 CHECK (locked IN (0, 1));
CREATE INDEX apps_of_owner ON apps (owner_id);

CREATE TABLE collaborators (
    id          TEXT PRIMARY KEY,
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    account_id  TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    permissions TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    UNIQUE (app_id, account_id)
) STRICT;
CREATE INDEX collaborators_by_account ON collaborators (account_id);

CREATE TABLE transfers (
    id           TEXT PRIMARY KEY,
    app_id       TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    owner_id     TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    recipient_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'accepted', 'declined')),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX transfers_of_app ON transfers (app_id);

-- Public keys of people, as they gave them.
CREATE TABLE keys (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    public_key  TEXT NOT NULL,
    comment     TEXT NOT NULL,
    fingerprint TEXT NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX keys_of_account ON keys (account_id);

-- Every request that changes something, from before it is carried out; `status` is null until it has been. Names are kept
-- beside ids, as apps and accounts go and this stays.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    account_id TEXT NOT NULL,
    email      TEXT NOT NULL,
    action     TEXT NOT NULL,
    app_id     TEXT,
    app        TEXT,
    path       TEXT NOT NULL,
    note       TEXT,
    origin     TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status     INTEGER
) STRICT;
CREATE INDEX audit_of_app ON audit (app_id, id) WHERE app_id IS NOT NULL;
