-- Ids are UUIDs as text, times are nanoseconds since 1970 (UTC), lists and maps are JSON.

CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,
    email      TEXT NOT NULL UNIQUE COLLATE NOCASE,
    admin      INTEGER NOT NULL CHECK (admin IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- A token itself is never kept, only its digest.
CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    sha256      BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    description TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT;
CREATE INDEX tokens_of_account ON tokens (account_id);

CREATE TABLE apps (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    owner_id    TEXT NOT NULL REFERENCES accounts (id),
    stack       TEXT NOT NULL,
    maintenance INTEGER NOT NULL CHECK (maintenance IN (0, 1)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    released_at INTEGER
) STRICT;

CREATE TABLE slugs (
    id                    TEXT PRIMARY KEY,
    app_id                TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    digest                TEXT NOT NULL CHECK (length(digest) = 64),
    size                  INTEGER NOT NULL,
    commit_id             TEXT,
    stack                 TEXT NOT NULL,
    process_types         TEXT NOT NULL,
    buildpack_description TEXT,
    created_at            INTEGER NOT NULL
) STRICT;
CREATE INDEX slugs_of_app ON slugs (app_id);
CREATE INDEX slugs_by_digest ON slugs (digest);

-- `config` is sealed with the instance's key, bound to the release's id.
CREATE TABLE releases (
    id           TEXT PRIMARY KEY,
    app_id       TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version      INTEGER NOT NULL CHECK (version > 0),
    slug_id      TEXT REFERENCES slugs (id),
    config       BLOB NOT NULL,
    addons       TEXT NOT NULL,
    description  TEXT NOT NULL,
    created_by   TEXT NOT NULL REFERENCES accounts (id),
    status       TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    phase_passed INTEGER NOT NULL CHECK (phase_passed IN (0, 1)),
    failure      TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (app_id, version)
) STRICT;
CREATE INDEX releases_of_slug ON releases (slug_id);
CREATE INDEX releases_pending ON releases (app_id, version) WHERE status = 'pending';

CREATE TABLE builds (
    id             TEXT PRIMARY KEY,
    app_id         TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    created_by     TEXT NOT NULL REFERENCES accounts (id),
    status         TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    slug_id        TEXT REFERENCES slugs (id),
    release_id     TEXT REFERENCES releases (id),
    failure        TEXT,
    source_version TEXT,
    buildpacks     TEXT NOT NULL,
    stack          TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    CHECK ((status = 'succeeded') = (slug_id IS NOT NULL)),
    CHECK ((status = 'failed') = (failure IS NOT NULL))
) STRICT;
CREATE INDEX builds_of_app ON builds (app_id, created_at);
CREATE INDEX builds_of_slug ON builds (slug_id);
CREATE INDEX builds_of_release ON builds (release_id);
CREATE INDEX builds_pending ON builds (created_at) WHERE status = 'pending';

CREATE TABLE formations (
    id         TEXT PRIMARY KEY,
    app_id     TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    type       TEXT NOT NULL,
    quantity   INTEGER NOT NULL CHECK (quantity >= 0),
    size       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app_id, type)
) STRICT;

CREATE TABLE epochs (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    dyno   TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    PRIMARY KEY (app_id, dyno)
) STRICT, WITHOUT ROWID;

CREATE TABLE buildpacks (
    app_id  TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    url     TEXT NOT NULL,
    PRIMARY KEY (app_id, ordinal)
) STRICT, WITHOUT ROWID;

-- One row, sealed with the key this database belongs to, so that a wrong key is noticed when the server starts.
CREATE TABLE key_check (
    sealed BLOB NOT NULL
) STRICT;
