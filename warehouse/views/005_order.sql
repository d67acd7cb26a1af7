-- Which run came first: quantgate/bundles/order.py has the rule and its reasons; a test compares the two.
-- Sort by it, ascending: the first that was declared comes first.
CREATE OR REPLACE MACRO run_order(declared_order, started_at, run_id) AS
    struct_pack(declared_order := coalesce(declared_order, 0), started_at := started_at, run_id := run_id);
