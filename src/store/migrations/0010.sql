-- Certificates of apps. `private_key` is sealed with the instance's key, bound to the endpoint's id.
CREATE TABLE sni_endpoints (
    id          TEXT PRIMARY KEY,
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name        TEXT NOT NULL UNIQUE,
    chain       TEXT NOT NULL,
    private_key BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX sni_endpoints_of_app ON sni_endpoints (app_id);

-- Which of them is shown for a host name.
ALTER TABLE domains ADD COLUMN sni_endpoint_id TEXT REFERENCES sni_endpoints (id) ON DELETE SET NULL;
