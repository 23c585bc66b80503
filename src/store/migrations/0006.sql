-- Where an app's log is sent. `url` is sealed with the instance's key, bound to the drain's id: it may have a password.
CREATE TABLE drains (
    id         TEXT PRIMARY KEY,
    app_id     TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    token      TEXT NOT NULL UNIQUE,
    url        BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX drains_of_app ON drains (app_id);
