-- Which layers of its stack a slug's dynos get.
ALTER TABLE slugs ADD COLUMN languages TEXT NOT NULL DEFAULT '[]';
