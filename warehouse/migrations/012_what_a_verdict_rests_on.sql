-- The suite, the tasks and the documents that a verdict rests on.
ALTER TABLE store.standing_verdicts ADD COLUMN suite VARCHAR;
ALTER TABLE store.standing_verdicts ADD COLUMN tasks VARCHAR[];
ALTER TABLE store.standing_verdicts ADD COLUMN documents BIGINT;
-- A use of which nothing was measured is UNVALIDATED; earlier versions called it INCONCLUSIVE, without any task.
UPDATE store.verdicts AS v SET verdict = 'UNVALIDATED'
WHERE verdict = 'INCONCLUSIVE'
  AND NOT EXISTS (SELECT 1 FROM store.task_verdicts t WHERE t.run_id = v.run_id AND t.use = v.use);
UPDATE store.post_hoc_verdicts AS v SET verdict = 'UNVALIDATED'
WHERE verdict = 'INCONCLUSIVE'
  AND NOT EXISTS (
      SELECT 1 FROM store.post_hoc_task_verdicts t
      WHERE t.run_id = v.run_id AND t.use = v.use AND t.policy = v.policy AND t.policy_fingerprint = v.policy_fingerprint
  );
