-- The question's place among those about its claim when it was declared, the share of alpha that a policy keeps for later
-- ones, and the seed of the documents' order.
ALTER TABLE store.runs ADD COLUMN question BIGINT DEFAULT 1;
ALTER TABLE store.policies ADD COLUMN reserve DOUBLE DEFAULT 0;
ALTER TABLE store.policies ADD COLUMN seed BIGINT DEFAULT 0;
