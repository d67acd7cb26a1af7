-- What a run's verdict is a claim about, by content (quantgate/bundles/claims.py); NULL for a baseline, and for a run
-- whose bundle is gone.
ALTER TABLE store.runs ADD COLUMN claim_key VARCHAR;
ALTER TABLE store.runs ADD COLUMN candidate_key VARCHAR;    -- candidate and baseline, on whatever architecture and engine
ALTER TABLE store.runs ADD COLUMN weights_sha256 VARCHAR;
ALTER TABLE store.runs ADD COLUMN counts_as_try BOOLEAN DEFAULT true;   -- enough answers were scored to decide anything
ALTER TABLE store.runs ADD COLUMN serving_arguments MAP(VARCHAR, VARCHAR);
ALTER TABLE store.run_tasks ADD COLUMN content_sha256 VARCHAR;
ALTER TABLE store.run_tasks ADD COLUMN copies BIGINT;
ALTER TABLE store.run_tasks ADD COLUMN floor DOUBLE;

-- Questions as runs declared them before they asked; `file` is the declaration's in the bundles store.
CREATE TABLE store.declarations (
    file VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    declared_order BIGINT NOT NULL,
    declared_at TIMESTAMPTZ NOT NULL,
    claim_key VARCHAR NOT NULL,
    candidate_key VARCHAR NOT NULL,
    question_key VARCHAR NOT NULL,
    checkpoint VARCHAR NOT NULL,
    baseline VARCHAR NOT NULL,
    sm_arch VARCHAR NOT NULL,
    engine VARCHAR NOT NULL,
    engine_version VARCHAR NOT NULL,
    suite VARCHAR NOT NULL,
    tasks VARCHAR[] NOT NULL,
    families VARCHAR[] NOT NULL,
    policy VARCHAR NOT NULL,
    policy_fingerprint VARCHAR NOT NULL,
    uses MAP(VARCHAR, VARCHAR[]) NOT NULL,
    continues VARCHAR,
    scored BOOLEAN NOT NULL             -- enough answers were scored to decide anything
);

-- Verdicts that changed when keys were computed anew, for `quantgate status`.
CREATE TABLE store.changed_verdicts (
    run_id VARCHAR NOT NULL,
    use VARCHAR NOT NULL,
    before VARCHAR NOT NULL,
    after VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);

ALTER TABLE store.standing_verdicts ADD COLUMN reason VARCHAR;
ALTER TABLE store.standing_verdicts ADD COLUMN policy VARCHAR;
ALTER TABLE store.standing_verdicts ADD COLUMN policy_fingerprint VARCHAR;
ALTER TABLE store.standing_verdicts ADD COLUMN margin DOUBLE;
ALTER TABLE store.standing_verdicts ADD COLUMN looks_used BIGINT;
ALTER TABLE store.standing_verdicts ADD COLUMN declared_at TIMESTAMPTZ;
ALTER TABLE store.standing_verdicts ADD COLUMN baseline_revision VARCHAR;
ALTER TABLE store.standing_verdicts ADD COLUMN tries BIGINT;
ALTER TABLE store.standing_verdicts ADD COLUMN alarms VARCHAR[];
ALTER TABLE store.table_points ADD COLUMN serving_arguments MAP(VARCHAR, VARCHAR);
