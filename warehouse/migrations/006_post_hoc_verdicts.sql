-- What the judge says of a run under a policy that it did not declare: the tables of declared verdicts over again, so
-- that nothing which reads those can take one for the other. A row is known by (run_id, use, policy, its fingerprint).
CREATE TABLE store.post_hoc_verdicts AS FROM store.verdicts LIMIT 0;
CREATE TABLE store.post_hoc_task_verdicts AS FROM store.task_verdicts LIMIT 0;
