select ordered_at, sum(order_cents) as cents
from {{ ref('orders') }}
group by ordered_at
