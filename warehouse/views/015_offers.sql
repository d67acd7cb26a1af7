-- The hourly cost of an offer, scaled to another number of GPUs.
CREATE OR REPLACE MACRO usd_per_hour_of(usd_per_hour, offered_gpus, gpus) AS usd_per_hour / offered_gpus * gpus;

-- The cost of an hour of serving on a machine that can be interrupted, USD/h. Interruptions come at random
-- (Poisson) at a rate per hour of the machine, and after each one the next machine is paid for reload_s seconds
-- before it serves. It serves at an instant if no interruption came within the last reload_s seconds, which has the
-- probability exp(-rate * reload_s / 3600): that share of the paid time is useful. Waiting for the next machine
-- isn't paid, and lost work isn't counted. NULL if the rate or the time is below zero.
CREATE OR REPLACE MACRO effective_spot_usd_per_hour(usd_per_hour, interruptions_per_hour, reload_s) AS
    CASE WHEN interruptions_per_hour >= 0 AND reload_s >= 0
        THEN usd_per_hour * exp(interruptions_per_hour * reload_s / 3600) END;

-- The offers in force at an instant: valid_from <= ts < valid_to, and of each series the latest. A price that this
-- project assumes is none where somebody offers the GPU, of whatever kind: beside a real price it would double the rows,
-- and be the lowest one.
CREATE OR REPLACE MACRO offers_at(ts) AS TABLE
WITH of_series AS (
    SELECT *
    FROM store.price_offers
    WHERE day_start(valid_from) <= ts::TIMESTAMPTZ
      AND (valid_to IS NULL OR ts::TIMESTAMPTZ < day_start(valid_to))
    QUALIFY row_number() OVER (
        PARTITION BY provider, region, gpu, gpu_count, price_kind ORDER BY valid_from DESC
    ) = 1
)
SELECT *
FROM of_series
QUALIFY evidence <> 'estimated' OR bool_and(evidence = 'estimated') OVER (PARTITION BY gpu);

-- Every known GPU and kind of price at an instant: the offers in force, or one row with the reason that there is none.
CREATE OR REPLACE MACRO gpu_prices_at(ts) AS TABLE
SELECT
    g.gpu,
    k.price_kind,
    o.provider,
    o.region,
    o.gpu_count,
    o.usd_per_hour,
    usd_per_hour_of(o.usd_per_hour, o.gpu_count, 1) AS usd_per_gpu_hour,
    o.valid_from AS price_as_of,
    o.valid_to AS price_valid_to,
    o.evidence AS price_evidence,
    o.source AS price_source,
    o.note AS price_note,
    CASE WHEN o.usd_per_hour IS NULL THEN 'no_price' END AS null_reason
FROM store.gpus g
CROSS JOIN (VALUES ('on_demand'), ('spot'), ('reserved')) k(price_kind)
LEFT JOIN offers_at(ts) o ON o.gpu = g.gpu AND o.price_kind = k.price_kind;

CREATE OR REPLACE VIEW gpu_prices AS
SELECT * FROM gpu_prices_at(now()) ORDER BY gpu, price_kind, provider, region, gpu_count;

-- The estimated cost of a reservation that nobody offers at a price: a range below the on-demand offer in force.
-- It is no offer: no cost is computed from it.
CREATE OR REPLACE MACRO reserved_ranges_at(ts) AS TABLE
SELECT
    o.provider,
    o.region,
    o.gpu,
    o.gpu_count,
    o.usd_per_hour AS on_demand_usd_per_hour,
    o.usd_per_hour * (1 - r.saving_high) AS usd_per_hour_low,
    o.usd_per_hour * (1 - r.saving_low) AS usd_per_hour_high,
    o.valid_from AS price_as_of,
    'estimated' AS evidence,
    r.source || '; on demand: ' || o.source AS source
FROM offers_at(ts) o
CROSS JOIN store.reserved_rule r
WHERE o.price_kind = 'on_demand'
  AND o.evidence <> 'estimated'
  AND NOT EXISTS (
      SELECT 1 FROM offers_at(ts) n
      WHERE n.price_kind = 'reserved' AND n.provider = o.provider AND n.region = o.region
        AND n.gpu = o.gpu AND n.gpu_count = o.gpu_count
  );

CREATE OR REPLACE VIEW reserved_ranges AS
SELECT * FROM reserved_ranges_at(now()) ORDER BY provider, region, gpu, gpu_count;

-- The hourly cost of the hardware of runs at an instant, per provider, region and kind. An offer is for its
-- gpu_count GPUs together; an offer for the run's own count is preferred, else the smallest offer is scaled.
CREATE OR REPLACE MACRO hardware_prices_at(ts) AS TABLE
SELECT
    h.gpu,
    h.gpu_count,
    o.provider,
    o.region,
    o.price_kind,
    usd_per_hour_of(o.usd_per_hour, o.gpu_count, h.gpu_count) AS usd_per_hour,
    o.valid_from AS price_as_of,
    o.valid_to AS price_valid_to,
    o.source AS price_source,
    o.note AS price_note
FROM (SELECT DISTINCT gpu, gpu_count FROM store.runs) h
JOIN offers_at(ts) o USING (gpu)
QUALIFY row_number() OVER (
    PARTITION BY h.gpu, h.gpu_count, o.provider, o.region, o.price_kind
    ORDER BY o.gpu_count <> h.gpu_count, o.gpu_count
) = 1;

-- The same for each run. MIG slices are left out: they have no price of their own yet, and a whole GPU's is wrong.
CREATE OR REPLACE MACRO run_prices_at(ts) AS TABLE
SELECT r.run_id, p.* EXCLUDE (gpu, gpu_count)
FROM store.runs r
JOIN hardware_prices_at(ts) p USING (gpu, gpu_count)
WHERE r.mig_slice IS NULL;
