-- `vals` is sealed with the instance's key, bound to the add-on's id.
CREATE TABLE addons (
    id         TEXT PRIMARY KEY,
    app_id     TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name       TEXT NOT NULL UNIQUE,
    plan       TEXT NOT NULL,
    vals       BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX addons_of_app ON addons (app_id);

CREATE TABLE addon_attachments (
    id         TEXT PRIMARY KEY,
    addon_id   TEXT NOT NULL REFERENCES addons (id) ON DELETE CASCADE,
    app_id     TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (app_id, name)
) STRICT;
CREATE INDEX attachments_of_addon ON addon_attachments (addon_id);

-- What the attachments brought when the release was made, sealed as `config` is; none in older releases.
ALTER TABLE releases ADD COLUMN attached BLOB;
