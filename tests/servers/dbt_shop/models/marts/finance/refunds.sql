select order_id, order_cents
from {{ ref('orders') }}
where status = 'returned'
