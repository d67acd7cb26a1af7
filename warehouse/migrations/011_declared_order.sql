-- The run's number in the bundles store (quantgate/bundles/order.py); runs of earlier versions have none and come first.
ALTER TABLE store.runs ADD COLUMN declared_order BIGINT DEFAULT 0;
