-- The offers that hold at an instant: valid_from <= ts < valid_to, and of one series the latest.
CREATE OR REPLACE MACRO offers_at(ts) AS TABLE
SELECT *
FROM store.price_offers
WHERE day_start(valid_from) <= ts::TIMESTAMPTZ
  AND (valid_to IS NULL OR ts::TIMESTAMPTZ < day_start(valid_to))
QUALIFY row_number() OVER (
    PARTITION BY provider, region, gpu, gpu_count, price_kind ORDER BY valid_from DESC
) = 1;

-- What a run's hardware costs an hour at an instant, per provider, region and kind. An offer is for its
-- gpu_count GPUs together; one for the run's own count goes first, others are scaled from the smallest.
-- A MIG slice has no price of its own yet, and a whole GPU's would be wrong.
CREATE OR REPLACE MACRO run_prices_at(ts) AS TABLE
SELECT
    r.run_id,
    o.provider,
    o.region,
    o.price_kind,
    o.usd_per_hour / o.gpu_count * r.gpu_count AS usd_per_hour,
    o.valid_from AS price_as_of,
    o.valid_to AS price_valid_to,
    o.source AS price_source,
    o.note AS price_note
FROM store.runs r
JOIN offers_at(ts) o USING (gpu)
WHERE r.mig_slice IS NULL
QUALIFY row_number() OVER (
    PARTITION BY r.run_id, o.provider, o.region, o.price_kind
    ORDER BY o.gpu_count <> r.gpu_count, o.gpu_count
) = 1;
