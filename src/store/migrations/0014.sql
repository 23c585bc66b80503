-- Refusals of one kind within a minute are one event.
ALTER TABLE audit ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
-- Who owned the app then: that one may read it when the app is gone.
ALTER TABLE audit ADD COLUMN owner_id TEXT;
UPDATE audit SET owner_id = (SELECT owner_id FROM apps WHERE apps.id = audit.app_id) WHERE app_id IS NOT NULL;
-- Who has the most events loses the oldest of them when there are too many.
CREATE INDEX audit_of_account ON audit (account_id, id);
