-- What the baseline's weights are known by: claims of one candidate count together, whatever it was compared with.
ALTER TABLE store.runs ADD COLUMN baseline_weights VARCHAR;
ALTER TABLE store.declarations ADD COLUMN baseline_weights VARCHAR;
DELETE FROM store.declarations;     -- the load reads them again, with the keys of today
ALTER TABLE store.table_points ADD COLUMN baseline_precision VARCHAR;
