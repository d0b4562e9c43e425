select orders.order_id, orders.customer_id, orders.store_id, orders.ordered_at, orders.status,
    totals.order_cents, totals.item_count
from {{ ref('stg_orders') }} orders
join {{ ref('int_order_totals') }} totals on totals.order_id = orders.order_id
where orders.status <> 's3cr3t-l1teral'
