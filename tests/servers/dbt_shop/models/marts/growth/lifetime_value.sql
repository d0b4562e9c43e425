select customer_id, sum(order_cents) as cents
from {{ ref('orders') }}
group by customer_id
