-- Whether an app's owner has chosen its stack. If not, its first build may take the one that app.json names. Of apps from
-- before, nobody knows.
ALTER TABLE apps ADD COLUMN stack_chosen INTEGER NOT NULL DEFAULT 1;
