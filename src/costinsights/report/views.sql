-- The contract of the report: what each number in it is, in SQL that other engines understand.
--
-- The dialect is DuckDB's. Below the views lie two tables, which `costinsights.ledger.store`
-- provides and docs/report.md describes:
--
--   postings   one row a charge, or the sum of a day's alike charges; together they count every
--              charge once, at its best basis. A later figure for a charge that was compacted
--              before comes with a row that takes the earlier one back (calls = -1).
--   asked      one row; label is the label that a report is asked for by, or NULL.
--
-- `period` is 0 for the time that was asked for and 1 for the time before it, in a comparison.
-- A row without a currency has no price: its calls are counted and its amount is NULL, never 0.
-- An item is NULL where the calls are nobody's.

CREATE OR REPLACE VIEW cost_by_asset AS
SELECT
    period,
    asset AS item,
    CAST(NULL AS VARCHAR) AS detail,
    currency,
    basis,
    sum(calls) AS calls,
    sum(errors) AS errors,
    sum(amount) AS amount,
    sum(duration_ns) AS duration_ns,
    sum("rows") AS "rows"
FROM postings
GROUP BY period, asset, currency, basis;

CREATE OR REPLACE VIEW cost_by_job AS
SELECT
    period,
    job AS item,
    CAST(NULL AS VARCHAR) AS detail,
    currency,
    basis,
    sum(calls) AS calls,
    sum(errors) AS errors,
    sum(amount) AS amount,
    sum(duration_ns) AS duration_ns,
    sum("rows") AS "rows"
FROM postings
GROUP BY period, job, currency, basis;

CREATE OR REPLACE VIEW cost_by_team AS
SELECT
    period,
    team AS item,
    CAST(NULL AS VARCHAR) AS detail,
    currency,
    basis,
    sum(calls) AS calls,
    sum(errors) AS errors,
    sum(amount) AS amount,
    sum(duration_ns) AS duration_ns,
    sum("rows") AS "rows"
FROM postings
GROUP BY period, team, currency, basis;

CREATE OR REPLACE VIEW cost_by_system AS
SELECT
    period,
    system AS item,
    CAST(NULL AS VARCHAR) AS detail,
    currency,
    basis,
    sum(calls) AS calls,
    sum(errors) AS errors,
    sum(amount) AS amount,
    sum(duration_ns) AS duration_ns,
    sum("rows") AS "rows"
FROM postings
GROUP BY period, system, currency, basis;

-- A query is known by its fingerprint; the summary is for people.
CREATE OR REPLACE VIEW cost_by_query AS
SELECT
    period,
    summary AS item,
    fingerprint AS detail,
    currency,
    basis,
    sum(calls) AS calls,
    sum(errors) AS errors,
    sum(amount) AS amount,
    sum(duration_ns) AS duration_ns,
    sum("rows") AS "rows"
FROM postings
GROUP BY period, summary, fingerprint, currency, basis;

CREATE OR REPLACE VIEW cost_by_label AS
SELECT
    p.period,
    CASE a.label
        WHEN 'asset' THEN p.asset
        WHEN 'partition' THEN p."partition"
        WHEN 'job' THEN p.job
        WHEN 'run' THEN p.run
        WHEN 'team' THEN p.team
        WHEN 'rule' THEN p.rule
        ELSE CAST(CAST(p.labels AS JSON) AS MAP(VARCHAR, VARCHAR))[a.label]
    END AS item,
    CAST(NULL AS VARCHAR) AS detail,
    p.currency,
    p.basis,
    sum(p.calls) AS calls,
    sum(p.errors) AS errors,
    sum(p.amount) AS amount,
    sum(p.duration_ns) AS duration_ns,
    sum(p."rows") AS "rows"
FROM postings p
CROSS JOIN asked a
GROUP BY 1, 2, 4, 5;

-- How sure the figures are: calls and money per basis.
CREATE OR REPLACE VIEW coverage AS
SELECT
    period,
    currency,
    basis,
    sum(calls) AS calls,
    sum(amount) AS amount
FROM postings
GROUP BY period, currency, basis;
