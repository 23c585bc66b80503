-- What is switched on for an app.
CREATE TABLE features (
    app_id     TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    feature    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (app_id, feature)
) STRICT;
