-- Where dynos of an app may connect to, as people write it. An app without a row has the Internet.
CREATE TABLE egress (
    app_id     TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    allowed    TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
