"""A shop's nightly pipeline, on data that it makes: loads, marts, features, a web page's look-ups.

Nothing here is about cost but the one line that switches costinsights on, and the words that say
who the work is for.
"""

from __future__ import annotations

import time

import duckdb

import costinsights

costinsights.instrument()  # the one line

ORDERS = 1_000_000
CUSTOMERS = 40_000
PRODUCTS = 800
LOOKUPS = 2_500

LOADS = {
    "raw/customers": f"""
        CREATE OR REPLACE TABLE customers AS
        SELECT i AS id, 'customer ' || i AS name, ['DE', 'FR', 'NL', 'PL'][1 + i % 4] AS country
        FROM range({CUSTOMERS}) t(i)
    """,
    "raw/products": f"""
        CREATE OR REPLACE TABLE products AS
        SELECT i AS id, 'product ' || i AS name, 2 + (i * 37 % 900) / 10.0 AS price, 0 AS views
        FROM range({PRODUCTS}) t(i)
    """,
    "raw/orders": f"""
        CREATE OR REPLACE TABLE orders AS
        SELECT i AS id, hash(i) % {CUSTOMERS} AS customer_id, hash(i * 7) % {PRODUCTS} AS product_id,
               DATE '2026-01-01' + CAST(i % 320 AS INTEGER) AS day, 1 + i % 3 AS quantity
        FROM range({ORDERS}) t(i)
    """,
}

REVENUE = """
    CREATE OR REPLACE TABLE revenue_daily AS
    SELECT o.day, c.country, p.name AS product, sum(o.quantity * p.price) AS revenue,
           count(DISTINCT o.customer_id) AS customers
    FROM orders o JOIN products p ON p.id = o.product_id JOIN customers c ON c.id = o.customer_id
    GROUP BY ALL
"""

LIFETIME_VALUE = """
    CREATE OR REPLACE TABLE customer_ltv AS
    SELECT customer_id, sum(value) AS ltv, max(running) AS best_running, max(gap) AS longest_gap
    FROM (
        SELECT o.customer_id, o.quantity * p.price AS value,
               sum(o.quantity * p.price) OVER w AS running, o.day - lag(o.day) OVER w AS gap
        FROM orders o JOIN products p ON p.id = o.product_id
        WINDOW w AS (PARTITION BY o.customer_id ORDER BY o.day, o.id)
    )
    GROUP BY customer_id
"""

BASKETS = """
    CREATE OR REPLACE TABLE bought_together AS
    SELECT a.product_id AS product, b.product_id AS other, count(*) AS times
    FROM orders a JOIN orders b
      ON a.customer_id = b.customer_id AND a.day = b.day AND a.product_id < b.product_id
    GROUP BY ALL
    ORDER BY times DESC
    LIMIT 5000
"""


def load(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring in the raw tables."""
    for asset, query in LOADS.items():
        with costinsights.attribute(asset=asset):
            connection.execute(query)


def build_marts(connection: duckdb.DuckDBPyConnection) -> None:
    """Dear and rare: a few statements that read everything."""
    with costinsights.attribute(asset="marts/revenue_daily"):
        connection.execute(REVENUE)
    with costinsights.attribute(asset="marts/customer_ltv"):
        connection.execute(LIFETIME_VALUE)


def build_features(connection: duckdb.DuckDBPyConnection) -> None:
    """A product's features for the recommender, a category at a time."""
    with costinsights.attribute(asset="features/bought_together"):
        connection.execute(BASKETS)
    with costinsights.attribute(asset="features/product_stats"):
        for category in range(12):
            connection.execute(
                "SELECT product_id, avg(quantity), stddev(quantity), count(DISTINCT customer_id) "
                "FROM orders WHERE product_id % 12 = ? GROUP BY product_id",
                [category],
            ).fetchall()


def check_quality(connection: duckdb.DuckDBPyConnection) -> None:
    """Some checks pass; one asks for a column that somebody has renamed, and costs all the same."""
    with costinsights.attribute(asset="quality/checks"):
        connection.execute("SELECT count(*) FROM orders WHERE quantity <= 0").fetchone()
        connection.execute("SELECT id FROM orders GROUP BY id HAVING count(*) > 1").fetchall()
        try:
            connection.execute("SELECT max(ordered_at) FROM orders").fetchone()
        except duckdb.BinderException as error:
            print(f"            a check failed: {str(error).splitlines()[0][:50]} …")


def serve(connection: duckdb.DuckDBPyConnection) -> None:
    """Cheap and frequent: what a web page asks, again and again."""
    with costinsights.attribute(asset="web/product_page"):
        for visit in range(LOOKUPS):
            product = visit * 37 % PRODUCTS
            connection.execute(
                "SELECT name, price FROM products WHERE id = ?", [product]
            ).fetchone()


def count_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Two writers want the same row: one is refused, and tries again."""
    with costinsights.attribute(asset="web/view_counter"), connection.cursor() as other:
        update = "UPDATE products SET views = views + 1 WHERE id = ?"
        other.execute("BEGIN")
        other.execute(update, [7])
        for attempt in (1, 2):
            try:
                connection.execute(update, [7])
                print(f"            a conflicting update went through at attempt {attempt}")
            except duckdb.TransactionException:
                other.execute("COMMIT")


JOBS = (
    ("ingest", "data-platform", load),
    ("marts", "analytics", build_marts),
    ("recommender", "machine-learning", build_features),
    ("quality", "data-platform", check_quality),
    ("website", "web", serve),
    ("website", "web", count_views),
)


def main() -> None:
    """Run all jobs, as an orchestrator would."""
    with duckdb.connect() as connection:
        for job, team, work in JOBS:
            started = time.perf_counter()
            with costinsights.attribute(job=job, team=team) as scope:
                work(connection)
            took = time.perf_counter() - started
            print(f"  {job:<12}{scope.cost().calls:>6,} calls  {took:>5.1f} s", flush=True)


if __name__ == "__main__":
    main()
