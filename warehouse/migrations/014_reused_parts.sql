-- Parts that an earlier run measured (fidelity, load c8), and that run (Manifest.reused).
ALTER TABLE store.runs ADD COLUMN reused MAP(VARCHAR, VARCHAR) DEFAULT MAP {};
