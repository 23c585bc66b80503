CREATE TABLE pipelines (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    owner      TEXT NOT NULL REFERENCES accounts (id),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE pipeline_couplings (
    id          TEXT PRIMARY KEY,
    app_id      TEXT NOT NULL UNIQUE REFERENCES apps (id) ON DELETE CASCADE,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    stage       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX couplings_of_pipeline ON pipeline_couplings (pipeline_id);

-- Apps and releases may be gone while what was promoted is still asked for.
CREATE TABLE promotions (
    id          TEXT PRIMARY KEY,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    app_id      TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX promotions_of_pipeline ON promotions (pipeline_id);

CREATE TABLE promotion_targets (
    id           TEXT PRIMARY KEY,
    promotion_id TEXT NOT NULL REFERENCES promotions (id) ON DELETE CASCADE,
    app_id       TEXT NOT NULL,
    release_id   TEXT NOT NULL
) STRICT;
CREATE INDEX targets_of_promotion ON promotion_targets (promotion_id);
